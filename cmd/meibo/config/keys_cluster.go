package config

import "time"

// noWAN: one datacenter by now.
const noWAN = "other datacenters are not joined by this version"

var clusterKeys = []Key{
	{Path: "server", Type: Bool, Default: "false", Flag: "server", Goes: "cluster", Doc: "Take part in consensus."},
	{Path: "bootstrap", Type: Bool, Default: "false", Flag: "bootstrap", Goes: "cluster/consensus", Doc: "Begin a cluster alone."},
	{Path: "bootstrap_expect", Type: Int, Default: "0", Range: "0..", Flag: "bootstrap-expect", Goes: "cluster/consensus", Doc: "Begin a cluster once so many servers are there."},
	{Path: "encrypt", Secret: true, Flag: "encrypt", check: checkEncrypt, Goes: "cluster/gossip", Doc: "The secret of the cluster, base64 of 16, 24 or 32 bytes: encrypts and authenticates gossip and all that hosts say to each other. \"none\" does without; left out, only hosts on this machine are met. A key of the keyring file wins."},
	{Path: "encrypt_verify_incoming", Type: Bool, Default: "true", Status: Guard, quiet: isTrue, Note: "unencrypted gossip is always refused once encrypt is set; to change over, give every host the key first", Doc: "Refuse unencrypted gossip."},
	{Path: "encrypt_verify_outgoing", Type: Bool, Default: "true", Status: Guard, quiet: isTrue, Note: "gossip is always encrypted once encrypt is set; to change over, give every host the key first", Doc: "Send no unencrypted gossip."},
	{Path: "disable_keyring_file", Type: Bool, Default: "false", Flag: "disable-keyring-file", Goes: "cluster/gossip", Doc: "Keep no keyring in data_dir."},
	{Path: "retry_join", Type: Strings, Flag: "retry-join", check: checkJoin, Goes: "cluster/gossip", Doc: "Hosts to join, tried until it works: addresses or names, with or without a port, or go-sockaddr templates."},
	{Path: "retry_interval", Type: Duration, Default: "30s", Range: "1ms..", Flag: "retry-interval", Goes: "cluster/gossip", Doc: "Time between attempts to join."},
	{Path: "retry_max", Type: Int, Default: "0", Range: "0..", Flag: "retry-max", Goes: "cluster/gossip", Doc: "Most attempts to join; 0 goes on for ever."},
	{Path: "retry_join_wan", Type: Strings, Flag: "retry-join-wan", Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Servers of other datacenters to join."},
	{Path: "retry_interval_wan", Type: Duration, Default: "30s", Range: "1ms..", Flag: "retry-interval-wan", Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Time between attempts to join them."},
	{Path: "retry_max_wan", Type: Int, Default: "0", Range: "0..", Flag: "retry-max-wan", Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Most attempts to join them; 0 goes on for ever."},
	{Path: "start_join", Type: Strings, Flag: "join", Status: Legacy, Goes: "retry_join", Doc: "Hosts to join."},
	{Path: "start_join_wan", Type: Strings, Flag: "join-wan", Status: Legacy, Goes: "retry_join_wan", Doc: "Servers of other datacenters to join."},
	{Path: "rejoin_after_leave", Type: Bool, Default: "false", Flag: "rejoin", Goes: "cluster/gossip", Doc: "Join again after having left."},
	{Path: "leave_on_terminate", Type: Bool, Default: "false", Goes: "cluster", Doc: "Leave the cluster on SIGTERM. Consul's default is true on clients; here a restart is no leave."},
	{Path: "skip_leave_on_interrupt", Type: Bool, Goes: "cluster", Doc: "Do not leave on SIGINT. Default: true."},
	{Path: "reconnect_timeout", Type: Duration, Default: "72h", Range: "1s..", Goes: "cluster/leader", Doc: "Failed nodes are removed after this time."},
	{Path: "reconnect_timeout_wan", Type: Duration, Default: "72h", Range: "1s..", Status: Planned, Note: noWAN, Goes: "cluster/leader", Doc: "The same for servers of other datacenters."},
	{Path: "advertise_reconnect_timeout", Type: Duration, Status: Planned, Note: "reconnect_timeout counts for every node", Doc: "This node is removed after this time, whatever the others' reconnect_timeout says."},
	{Path: "serf_lan_allowed_cidrs", Type: Strings, Flag: "serf-lan-allowed-cidrs", check: checkCIDRs, Goes: "cluster/gossip", Doc: "Networks that members may come from."},
	{Path: "serf_wan_allowed_cidrs", Type: Strings, Flag: "serf-wan-allowed-cidrs", check: checkCIDRs, Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Networks that servers of other datacenters may come from."},
	{Path: "session_ttl_min", Type: Duration, Default: "10s", Range: "0s..", Status: Planned, Note: "there are no sessions yet", quiet: isDefault(10 * time.Second), Goes: "cluster/leader", Doc: "Least TTL of a session."},
	{Path: "server_rejoin_age_max", Type: Duration, Default: "168h", Range: "6h..", Status: Ignored, quiet: isDefault(168 * time.Hour), Note: "a server that was away joins as a follower, however long it took", Doc: "A server that was away for longer does not start."},
	{Path: "disable_remote_exec", Type: Bool, Default: "true", Status: Ignored, quiet: isTrue, Note: "meibo has no remote execution", Doc: "Remote execution is never possible."},
	{Path: "disable_coordinates", Type: Bool, Default: "false", Status: Moot, Doc: "Network coordinates are not kept."},
	{Path: "read_replica", Aliases: []string{"non_voting_server"}, Type: Bool, Flag: "read-replica", Status: Ignored, Note: enterprise + "; this server would be a voter", Doc: "Server without a vote."},
}

func tuningKeys() []Key {
	keys := under("performance",
		Key{Path: "raft_multiplier", Type: Int, Range: "1..10", Goes: "cluster/consensus", Doc: "Scales Consul's Raft timeouts, 1 to 10. Unset: meibo's, from the servers' round trip."},
		Key{Path: "leave_drain_time", Type: Duration, Default: "5s", Range: "0s..", Goes: "cmd/meibo", Doc: "Time for running requests when leaving."},
		Key{Path: "rpc_hold_timeout", Type: Duration, Default: "7s", Range: "0s..", Goes: "cluster", Doc: "How long a request waits for a leader."},
		Key{Path: "enable_xds_load_balancing", Type: Bool, Status: Ignored, Note: noMesh, Doc: "Of the mesh."},
		Key{Path: "grpc_keepalive_interval", Type: Duration, Status: Ignored, Note: "streams have heartbeats of their own", quiet: isDefault(30 * time.Second), Doc: "Of gRPC streams."},
		Key{Path: "grpc_keepalive_timeout", Type: Duration, Status: Ignored, Note: "streams have heartbeats of their own", quiet: isDefault(20 * time.Second), Doc: "Of gRPC streams."},
	)
	keys = append(keys, limitKeys()...)
	keys = append(keys, gossipKeys("gossip_lan", Used)...)
	keys = append(keys, under("gossip_lan",
		Key{Path: "hold_down", Type: Duration, Range: "1s..1h", Default: "5s", Status: Used, Goes: "cluster/gossip", Doc: "How long a host that was dead must be steady before it is answered again; doubled each time it goes, halved each quiet minute."},
		Key{Path: "hold_down_max", Type: Duration, Range: "1s..1h", Default: "5m", Status: Used, Goes: "cluster/gossip", Doc: "The most that hold_down grows to."},
	)...)
	keys = append(keys, gossipKeys("gossip_wan", Planned)...)
	keys = append(keys, under("autopilot",
		Key{Path: "cleanup_dead_servers", Type: Bool, Default: "true", Goes: "cluster/leader", Doc: "Remove dead servers once another has taken their place. All keys of autopilot give a new cluster its first configuration; operator autopilot set-config changes it."},
		Key{Path: "last_contact_threshold", Type: Duration, Default: "200ms", Range: "0s..", Goes: "cluster/leader", Doc: "A server heard of longer ago is not healthy."},
		Key{Path: "max_trailing_logs", Type: Int, Default: "250", Range: "0..", Goes: "cluster/leader", Doc: "A server further behind is not healthy."},
		Key{Path: "min_quorum", Type: Int, Default: "0", Range: "0..", Goes: "cluster/leader", Doc: "Servers that are never gone below by removing dead ones."},
		Key{Path: "server_stabilization_time", Type: Duration, Default: "10s", Range: "0s..", Goes: "cluster/leader", Doc: "A new server gets its vote after being healthy this long."},
		Key{Path: "disable_upgrade_migration", Type: Bool, Status: Ignored, Note: enterprise, Doc: "Upgrade migration."},
		Key{Path: "redundancy_zone_tag", Status: Ignored, Note: enterprise, Doc: "Redundancy zones."},
		Key{Path: "upgrade_version_tag", Status: Ignored, Note: enterprise, Doc: "Upgrade migration."},
	)...)
	return append(keys,
		Key{Path: "raft_snapshot_threshold", Type: Int, Range: "0..", Goes: "cluster/consensus", Doc: "Log entries between snapshots."},
		Key{Path: "raft_snapshot_interval", Type: Duration, Range: "0s..", Default: "30s", Status: Ignored, Note: "whether to make a snapshot is looked at every 30 s", quiet: isDefault(30 * time.Second), Doc: "Time between looks whether to make a snapshot."},
		Key{Path: "raft_trailing_logs", Type: Int, Range: "0..", Goes: "cluster/consensus", Doc: "Log entries kept behind a snapshot."},
		Key{Path: "raft_prevote_disabled", Type: Bool, Default: "false", Status: Moot, Doc: "Pre-vote is always on."},
		Key{Path: "raft_logstore", Type: Any, Status: Ignored, Note: "the log is always kept in bbolt, with a checksum for each entry", Doc: "How the log is kept."},
		Key{Path: "raft_boltdb", Type: Any, Status: Ignored, Note: "the log is always kept in bbolt, with a checksum for each entry", Doc: "How the log is kept."},
		Key{Path: "raft_protocol", Type: Int, Flag: "raft-protocol", Status: Moot, Doc: "Always the newest."},
		Key{Path: "protocol", Type: Int, Flag: "protocol", Status: Moot, Doc: "Always the newest."},
	)
}

func limitKeys() []Key {
	return under("limits",
		Key{Path: "http_max_conns_per_client", Type: Int, Default: "200", Range: "0..", Goes: "cluster/httpapi", Doc: "Most HTTP connections of one address; 0 sets no limit."},
		Key{Path: "https_handshake_timeout", Type: Duration, Default: "5s", Range: "0s..", Status: Planned, Note: noHTTPS, quiet: isDefault(5 * time.Second), Goes: "cluster/httpapi", Doc: "Time for a TLS handshake."},
		Key{Path: "kv_max_value_size", Type: Int, Default: "524288", Range: "0..", Status: Planned, Note: noKV, quiet: isDefault(int64(524288)), Goes: "cluster/httpapi", Doc: "Most bytes of a value in the KV store."},
		Key{Path: "txn_max_req_len", Type: Int, Default: "524288", Range: "0..", Status: Planned, Note: noKV, quiet: isDefault(int64(524288)), Goes: "cluster/httpapi", Doc: "Most bytes of a transaction."},
		Key{Path: "rpc_handshake_timeout", Type: Duration, Default: "5s", Range: "0s..", Goes: "cluster/link", Doc: "Time for the handshake of another host; 0s leaves the built-in bound."},
		Key{Path: "rpc_client_timeout", Type: Duration, Default: "60s", Range: "0s..", Status: Ignored, Note: "requests between hosts have bounds of their own", quiet: isDefault(time.Minute), Doc: "Time for a request to a server."},
		Key{Path: "rpc_max_conns_per_client", Type: Int, Range: "0..", Goes: "cluster/link", Doc: "Most connections of one other host, by node ID. Unset or 0: the built-in bound, 512."},
		Key{Path: "rpc_rate", Type: Number, Default: "-1", Status: Planned, quiet: isNegative, Note: "requests to servers are not limited by rate", Doc: "Requests to servers in a second."},
		Key{Path: "rpc_max_burst", Type: Int, Default: "1000", Range: "0..", Status: Moot, Doc: "Burst of rpc_rate."},
		Key{Path: "request_limits.mode", Default: "disabled", Choices: []string{"disabled", "permissive", "enforcing"}, Status: Planned, quiet: isDisabled, Note: "requests are not limited by rate", Doc: "What happens beyond the rates."},
		Key{Path: "request_limits.read_rate", Type: Number, Default: "-1", Status: Moot, Doc: "Reads in a second."},
		Key{Path: "request_limits.write_rate", Type: Number, Default: "-1", Status: Moot, Doc: "Writes in a second."},
	)
}

func gossipKeys(block string, status Status) []Key {
	note := ""
	if status != Used {
		note = noWAN
	}
	return under(block,
		Key{Path: "gossip_nodes", Type: Int, Range: "0..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Members told at a time."},
		Key{Path: "gossip_interval", Type: Duration, Range: "0s..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Time between rounds."},
		Key{Path: "probe_interval", Type: Duration, Range: "0s..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Time between probes of a member."},
		Key{Path: "probe_timeout", Type: Duration, Range: "0s..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Time for its answer."},
		Key{Path: "suspicion_mult", Type: Int, Range: "0..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Scales the time from suspected to failed."},
		Key{Path: "retransmit_mult", Type: Int, Range: "0..", Status: status, Note: note, Goes: "cluster/gossip", Doc: "Scales the number of retransmissions."},
	)
}

const noKV = "there is no KV store yet"

// isDefault is true of a default that was written down.
func isDefault(standard any) func(any) bool { return func(v any) bool { return v == standard } }

func isTrue(v any) bool     { return v == true }
func isDisabled(v any) bool { return v == "disabled" || v == "" }

func isNegative(v any) bool {
	f, ok := v.(float64)
	return ok && f <= 0
}
