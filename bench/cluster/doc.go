// Command cluster measures what meibo does to the DNS load of a fleet, beside the ways people do it today, on one machine.
//
// Real: three servers as processes of the built binary, with Raft, disks and TLS over loopback; and for each host the link,
// the feed client, the view, the cache, the resolver and the zone of the daemon, many hosts in a process. Lookups enter at
// the resolver's Handler, every answer is judged. Simulated: the upstream of forwarded names, delay and loss (-latency,
// -loss: on the hosts' ends of their streams), and caches that know TTLs alone. Computed: what a socket adds to a lookup,
// what such caches cost the servers, and all that the model says. The report marks each.
//
// Hosts of a process share the records of the catalog, and what they knew over a restart stays in memory, as from a file: so
// one host among them is a process, and what a host takes in memory is measured of that.
//
// A process with players plays hosts: the command starts itself again for that, and speaks net/rpc with them over their
// standard input and output.
package main
