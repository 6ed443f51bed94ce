// Package membership is the member table and the rules by which a member is
// alive, suspect, failed or left: a state machine that is told the time, and
// what gossip says, and that publishes an immutable table. It has no clock, no
// lock, no socket, and doesn't know how members are heard of. DESIGN.md has the
// model, the states, and the rules by number.
package membership
