// Package gossip speaks with the other hosts of the cluster by
// hashicorp/memberlist, and carries out what the rules of
// meibo/cluster/membership want.
//
// memberlist believes a single accuser, so its word is a suspicion and no more:
// membership's DESIGN.md says by what rules a member is dead, or back. Among ten
// hosts a dead one is out everywhere after 2.9 s in the median and 3.9 s at most,
// with no false death in hours at 20 % packet loss. Among six hundred it is 4 s, and
// a host at rest sends twelve packets a second, in a cluster of any size
// (bench/gossip).
//
// The parts: transport.go holds the sockets; delegate.go is all that memberlist
// calls, and hands everything over through a bounded inbox without waiting;
// run.go tells the members what came in, and the time; wants.go does what they
// want done; join.go calls others, failed members every 10 s among them, so that
// a split of any length heals; keyring.go keeps the keys, snapshot.go the list of
// members over a restart. memberlist.go has all that works around memberlist.
//
// The room knows nothing of Raft, of the catalog or of DNS.
package gossip
