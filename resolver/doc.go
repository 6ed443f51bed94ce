// Package resolver takes one question to one answer.
//
// A question is looked for in the cache, then shown to the zones and routes whose
// suffix it has, longest first: a Zone answers at once from memory, says that the
// name is not its own, or asks for time; an Upstream always needs time. What needs
// time becomes a flight: one goroutine for all clients that ask the same, bounded
// in number, in waiters and in time. What comes back is judged by the rules of the
// RFCs (1035, 2181, 2308, 4035, 6840, 6891, 8767, 8914, 9520), stored, and given to
// each waiter under its own ID, flags, letter case and size.
//
// Every question gets a reply within the deadline: an answer, an expired answer
// when no upstream has one, or an error that says what happened. A panic costs the
// question that caused it and no more.
//
// The package knows no sockets, no catalog and no configuration files; it declares
// Zone and Upstream, which others implement.
package resolver
