// Package agent holds what this host says of itself: its services, its checks
// and their state, and maintenance.
//
// Definitions come from files and from the API. Those of the API, and the
// state of every check, are kept under DataDir, and are there again before the
// first run of a check. A registration that cannot be kept is refused whole.
// What the agent holds is the truth about its node: anti-entropy makes the
// catalog equal to it, and views put it in the place of what the catalog says.
//
// The package knows nothing of Raft, gossip or HTTP: it is given a [Catalog].
package agent
