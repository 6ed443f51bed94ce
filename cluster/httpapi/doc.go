// Package httpapi serves Consul's HTTP API v1, to the field, so that Consul's clients
// work unchanged.
//
// There are two sets of handlers behind one [API]. Those under /v1/agent/ speak for this
// host and use an [Agent]. All others speak for the catalog of a datacenter and use a
// [Backend] and what the request itself says (its [Scope]: datacenter, token, the node
// it came through): they never look at "this host", so they answer the same when a
// request was carried here from another one.
//
// In front of both stands a guard. It refuses what a web page could send through a
// visitor's browser (a foreign Host, Origin or Sec-Fetch-Site), what the configuration
// blocks, and what is too large; it counts, and turns a panic into a 500.
//
// Everything is bounded: bodies, headers, connections per client, filters, and the
// number of blocking queries. A refusal names the limit.
//
// Deliberate differences from Consul are few: an unknown field's error names the nearest
// known one; a catalog write to a node that an agent answers for is carried out, as
// Consul does, but says in the header X-Meibo-Warning that the agent will undo it;
// `near` is accepted and changes nothing, as there are no coordinates.
//
// The package knows nothing of Raft, gossip or DNS.
package httpapi
