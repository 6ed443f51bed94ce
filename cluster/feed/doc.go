// Package feed carries changes of the catalog from a server to hosts: one stream
// for each host, many names in it. Both ends live here, so that what one writes
// the other reads.
//
// A Server follows a state.Store. It keeps, for every node and for every part (what
// one node has of one service), the newest value and its encoding, made once and
// shared by all receivers, in the order of their last change. A stream is a cursor
// in that order: whoever comes takes what changed after its cursor, each thing once
// and in its newest form. So nothing is queued for a slow reader, and a host that
// comes back says (history, index) and gets what it missed. What is gone is
// remembered too, within a bound; whose cursor lies before that is told everything
// anew.
//
// A Client finds a server, stays with it while that server hears from a leader,
// and moves to another only once the other says that it does. Hosts spread
// themselves: each prefers the servers in an order of its own.
//
// The package knows nothing of what is done with a change, and not who dials,
// accepts or encrypts.
package feed
