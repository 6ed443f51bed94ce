package config

// serviceKeys are those of a service block.
var serviceKeys = []Key{
	{Path: "id", Doc: "ID, unique on this node. Unset: name.", Goes: "cluster/agent"},
	{Path: "name", Doc: "Name, the one that is looked up.", Goes: "cluster/agent"},
	{Path: "tags", Type: Strings, Doc: "Tags, each a further name.", Goes: "cluster/agent"},
	{Path: "address", check: checkServiceAddress, Doc: "Address or name of this instance. Unset: the node's address.", Goes: "cluster/agent"},
	{Path: "port", Type: Int, Range: "0..65535", Doc: "Port of this instance.", Goes: "cluster/agent"},
	{Path: "socket_path", Aliases: []string{"socketpath"}, Doc: "Unix socket of this instance.", Goes: "cluster/agent"},
	{Path: "tagged_addresses", Aliases: []string{"taggedaddresses"}, Type: Any, Doc: "Further addresses by name: { lan { address, port } }.", Goes: "cluster/agent"},
	{Path: "meta", Type: StringMap, check: checkServiceMeta, Doc: "Pairs shown with the service; at most 64, keys to 128 bytes, values to 512.", Goes: "cluster/agent"},
	{Path: "weights.passing", Type: Int, Range: "1..65535", Default: "1", Doc: "SRV weight while passing.", Goes: "cluster/agent"},
	{Path: "weights.warning", Type: Int, Range: "0..65535", Default: "1", Doc: "SRV weight while warning.", Goes: "cluster/agent"},
	{Path: "enable_tag_override", Aliases: []string{"enabletagoverride"}, Type: Bool, Doc: "Others may change the tags in the catalog.", Goes: "cluster/agent"},
	{Path: "token", Secret: true, Doc: "Token of its registration.", Goes: "cluster/agent"},
	{Path: "checks", Aliases: []string{"check"}, Type: Blocks, Of: "check", Doc: "Its checks.", Goes: "cluster/agent"},
	{Path: "kind", Doc: "Empty for a service; the mesh's kinds are kept and mean nothing.", Goes: "cluster/agent", Status: Ignored, Note: noMesh},
	{Path: "proxy", Type: Any, Secret: true, Status: Ignored, Note: noMesh, Doc: "Sidecar proxies."},
	{Path: "connect", Type: Any, Secret: true, Status: Ignored, Note: noMesh, Doc: "The mesh."},
	{Path: "locality.region", Doc: "Region it runs in. Kept; answers are not sorted by it.", Goes: "cluster/agent"},
	{Path: "locality.zone", Doc: "Zone of the region.", Goes: "cluster/agent"},
	{Path: "namespace", Status: Guard, Note: enterprise, quiet: isDefaultName, Doc: "Namespaces."},
	{Path: "partition", Status: Guard, Note: enterprise, quiet: isDefaultName, Doc: "Partitions."},
}

// checkKeys are those of a check block.
var checkKeys = []Key{
	{Path: "id", Aliases: []string{"check_id", "checkid"}, Doc: "ID, unique on this node. Unset: name, or \"service:\" and the service's ID.", Goes: "cluster/agent"},
	{Path: "name", Doc: "Name for people.", Goes: "cluster/agent"},
	{Path: "notes", Doc: "Words for people.", Goes: "cluster/agent"},
	{Path: "service_id", Aliases: []string{"serviceid"}, Doc: "Service that it is a check of.", Goes: "cluster/agent"},
	{Path: "token", Secret: true, Doc: "Token of its registration.", Goes: "cluster/agent"},
	{Path: "status", Choices: []string{"passing", "warning", "critical"}, Doc: "Status until the first run. Default: critical.", Goes: "cluster/agent"},
	{Path: "args", Aliases: []string{"scriptargs", "script_args"}, Type: Strings, Doc: "Script check: command and arguments. Exit 0 passes, 1 warns, others are critical.", Goes: "cluster/check"},
	{Path: "script", Status: Legacy, Goes: "args", Doc: "Old form of args, given to a shell."},
	{Path: "http", Doc: "HTTP check: URL. 2xx passes, 429 warns.", Goes: "cluster/check"},
	{Path: "method", Doc: "HTTP: method. Default: GET.", Goes: "cluster/check"},
	{Path: "header", Type: ListMap, Secret: true, Doc: "HTTP: headers.", Goes: "cluster/check"},
	{Path: "body", Secret: true, Doc: "HTTP: body.", Goes: "cluster/check"},
	{Path: "disable_redirects", Aliases: []string{"disableredirects"}, Type: Bool, Doc: "HTTP: do not follow redirects.", Goes: "cluster/check"},
	{Path: "tcp", Doc: "TCP check: host:port.", Goes: "cluster/check"},
	{Path: "tcp_use_tls", Aliases: []string{"tcpusetls"}, Type: Bool, Doc: "TCP: with TLS.", Goes: "cluster/check"},
	{Path: "udp", Doc: "UDP check: host:port.", Goes: "cluster/check"},
	{Path: "grpc", Doc: "gRPC health check: host:port[/service].", Goes: "cluster/check"},
	{Path: "grpc_use_tls", Aliases: []string{"grpcusetls"}, Type: Bool, Doc: "gRPC: with TLS.", Goes: "cluster/check"},
	{Path: "h2ping", Doc: "HTTP/2 ping check: host:port.", Goes: "cluster/check"},
	{Path: "h2ping_use_tls", Aliases: []string{"h2pingusetls"}, Type: Bool, Default: "true", Doc: "HTTP/2 ping: with TLS.", Goes: "cluster/check"},
	{Path: "os_service", Aliases: []string{"osservice"}, Doc: "Service check of the operating system: unit.", Goes: "cluster/check"},
	{Path: "docker_container_id", Aliases: []string{"dockercontainerid"}, Doc: "Docker check: container. Not run by meibo: such a check is critical.", Goes: "cluster/check"},
	{Path: "shell", Status: Moot, Doc: "Docker: shell, of a check that is critical here for being one of Docker."},
	{Path: "alias_node", Aliases: []string{"aliasnode"}, Doc: "Alias check: node.", Goes: "cluster/check"},
	{Path: "alias_service", Aliases: []string{"aliasservice"}, Doc: "Alias check: service ID.", Goes: "cluster/check"},
	{Path: "ttl", Type: Duration, Range: "0s..", Doc: "TTL check: critical unless heard of within this time.", Goes: "cluster/check"},
	{Path: "tls_server_name", Aliases: []string{"tlsservername"}, Doc: "Name in the certificate.", Goes: "cluster/check"},
	{Path: "tls_skip_verify", Aliases: []string{"tlsskipverify"}, Type: Bool, Doc: "Accept any certificate.", Goes: "cluster/check"},
	{Path: "interval", Type: Duration, Range: "0s..", Doc: "Time between runs, at least 1s.", Goes: "cluster/check"},
	{Path: "timeout", Type: Duration, Range: "0s..", Doc: "Time for one run. Default: 10s, of scripts 30s.", Goes: "cluster/check"},
	{Path: "output_max_size", Aliases: []string{"outputmaxsize"}, Type: Int, Range: "0..", Doc: "Most bytes kept of the output.", Goes: "cluster/check"},
	{Path: "success_before_passing", Aliases: []string{"successbeforepassing"}, Type: Int, Range: "0..", Doc: "Good runs in a row until passing.", Goes: "cluster/check"},
	{Path: "failures_before_warning", Aliases: []string{"failuresbeforewarning"}, Type: Int, Range: "0..", Doc: "Bad runs in a row until warning. Unset: failures_before_critical.", Goes: "cluster/check"},
	{Path: "failures_before_critical", Aliases: []string{"failuresbeforecritical"}, Type: Int, Range: "0..", Doc: "Bad runs in a row until critical.", Goes: "cluster/check"},
	{Path: "deregister_critical_service_after", Aliases: []string{"deregistercriticalserviceafter"}, Type: Duration, Range: "0s..", Doc: "Deregister the service after so long critical, at least 1m.", Goes: "cluster/agent"},
	{Path: "namespace", Status: Guard, Note: enterprise, quiet: isDefaultName, Doc: "Namespaces."},
	{Path: "partition", Status: Guard, Note: enterprise, quiet: isDefaultName, Doc: "Partitions."},
}

// forwardKeys are those of a forward block.
var forwardKeys = []Key{
	{Path: "servers", Type: Strings, Own: true, Reload: true, check: checkServers, Goes: "forwarder", Doc: "Servers, each IP or IP:port; \"#\" stands for those of every other name."},
	{Path: "addresses", Type: Strings, Own: true, Reload: true, check: checkIP, Goes: "resolver/local", Doc: "In place of servers: the addresses of every name at and below the suffix but those in hosts files and records, which have nothing else."},
	{Path: "local", Type: Bool, Default: "false", Own: true, Reload: true, Goes: "resolver/local", Doc: "In place of servers: no names exist there but those in hosts files and records."},
	{Path: "mode", Default: "fastest", Choices: []string{"fastest", "strict", "all", "random"}, Own: true, Reload: true, Goes: "forwarder", Doc: "fastest: the best by measured time first; strict: in the order written; all: all at once; random: in random order."},
	{Path: "tls_name", Own: true, Reload: true, Goes: "forwarder", Doc: "Ask over TLS, and expect this name in the certificate. Refused until that is there: questions would leave in the clear."},
	{Path: "trust_ad", Type: Bool, Default: "false", Own: true, Reload: true, Goes: "forwarder", Doc: "Pass on what the servers say about DNSSEC (AD)."},
}

func isDefaultName(v any) bool { return v == "default" || v == "" }
