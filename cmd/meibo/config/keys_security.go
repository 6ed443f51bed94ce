package config

const noACL = "tokens and policies are not enforced yet: every request is allowed; bind HTTP to loopback, or limit it with http_config.allow_write_http_from"

func aclKeys() []Key {
	token := func(name, doc string) Key {
		return Key{Path: "tokens." + name, Secret: true, Reload: true, Goes: "cluster/acl", Status: Waiting, Doc: doc}
	}
	old := func(name, now string) Key {
		return Key{Path: "tokens." + name, Secret: true, Status: Legacy, Goes: "acl.tokens." + now, Doc: "Old name."}
	}
	keys := under("acl",
		Key{Path: "enabled", Type: Bool, Default: "false", Status: Guard, Note: noACL, Goes: "cluster/acl", Doc: "Ask for tokens. Not enforced yet; said at every start."},
		Key{Path: "default_policy", Default: "allow", Choices: []string{"allow", "deny"}, Goes: "cluster/acl", Status: Waiting, Doc: "What is allowed without a rule."},
		Key{Path: "down_policy", Default: "extend-cache", Choices: []string{"allow", "deny", "extend-cache", "async-cache"}, Goes: "cluster/acl", Status: Waiting, Doc: "What is allowed while the servers are away."},
		Key{Path: "token_ttl", Type: Duration, Default: "30s", Range: "0s..", Goes: "cluster/acl", Status: Waiting, Doc: "How long a token is remembered."},
		Key{Path: "policy_ttl", Type: Duration, Default: "30s", Range: "0s..", Goes: "cluster/acl", Status: Waiting, Doc: "How long a policy is remembered."},
		Key{Path: "role_ttl", Type: Duration, Default: "0s", Range: "0s..", Goes: "cluster/acl", Status: Waiting, Doc: "How long a role is remembered; 0s as policies."},
		Key{Path: "enable_token_replication", Type: Bool, Goes: "cluster/acl", Status: Waiting, Doc: "Copy tokens from the primary datacenter."},
		Key{Path: "enable_token_persistence", Type: Bool, Default: "false", Goes: "cluster/acl", Status: Waiting, Doc: "Keep tokens set through the API."},
		Key{Path: "enable_key_list_policy", Type: Bool, Goes: "cluster/acl", Status: Waiting, Doc: "Listing keys needs the list permission."},
		Key{Path: "disabled_ttl", Type: Duration, Status: Moot, Doc: "Of old versions."},
		Key{Path: "msp_disable_bootstrap", Type: Bool, Status: Ignored, Note: enterprise, Doc: "Service providers."},
		token("initial_management", "Token of the first management policy."),
		token("agent", "Token of the agent's own requests."),
		token("agent_recovery", "Token for this agent while the servers are away."),
		token("default", "Token of requests that bring none."),
		token("replication", "Token for copying from the primary datacenter."),
		token("dns", "Token of DNS lookups."),
		token("config_file_service_registration", "Token of services and checks defined in files that name none."),
		old("master", "initial_management"), old("agent_master", "agent_recovery"),
		Key{Path: "tokens.managed_service_provider", Type: Any, Secret: true, Status: Ignored, Note: enterprise, Doc: "Service providers."},
	)
	return keys
}

// tlsNotes says for each stanza of tls what takes its place.
const (
	noRPCTLS  = "traffic between agents is TLS 1.3, mutually authenticated by the encrypt key; certificates of Consul's RPC are used by checks alone, with enable_agent_tls_for_checks"
	noHTTPS   = "HTTPS is not served"
	noGRPCTLS = "meibo has no gRPC listener to protect"
)

func tlsKeys() []Key {
	var keys []Key
	for _, s := range []struct {
		name, note string
		status     Status
	}{{"defaults", noRPCTLS, Guard}, {"internal_rpc", noRPCTLS, Guard}, {"https", noHTTPS, Planned}, {"grpc", noGRPCTLS, Guard}} {
		keys = append(keys, under("tls."+s.name,
			Key{Path: "ca_file", Status: s.status, Note: s.note, Reload: true, Doc: "File of CA certificates."},
			Key{Path: "ca_path", Status: s.status, Note: s.note, Reload: true, Doc: "Directory of CA certificates."},
			Key{Path: "cert_file", Status: s.status, Note: s.note, Reload: true, Doc: "File of the certificate."},
			Key{Path: "key_file", Status: s.status, Note: s.note, Reload: true, Doc: "File of its key."},
			Key{Path: "tls_min_version", Status: Moot, check: checkTLSVersion, Doc: "Least version of TLS."},
			Key{Path: "tls_cipher_suites", Status: Moot, Doc: "Cipher suites of TLS 1.2."},
			Key{Path: "verify_incoming", Type: Bool, Status: s.status, Note: s.note, Reload: true, Doc: "Ask clients for a certificate."},
			Key{Path: "verify_outgoing", Type: Bool, Status: s.status, Note: s.note, Reload: true, Doc: "Check servers' certificates."},
			Key{Path: "verify_server_hostname", Type: Bool, Status: s.status, Note: s.note, Reload: true, Doc: "Check that servers are servers."},
			Key{Path: "use_auto_cert", Type: Bool, Status: Moot, Doc: "Use the certificate of auto_encrypt."},
		)...)
	}
	return keys
}

// legacyKeys are names of old versions that a Consul 1.21 agent still takes.
func legacyKeys() []Key {
	var keys []Key
	add := func(t Type, secret bool, pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			keys = append(keys, Key{Path: pairs[i], Type: t, Secret: secret, Status: Legacy, Goes: pairs[i+1], Doc: "Old name."})
		}
	}
	add(String, true, "acl_token", "acl.tokens.default", "acl_agent_token", "acl.tokens.agent",
		"acl_master_token", "acl.tokens.initial_management", "acl_agent_master_token", "acl.tokens.agent_recovery",
		"acl_replication_token", "acl.tokens.replication")
	add(String, false, "acl_datacenter", "primary_datacenter", "acl_default_policy", "acl.default_policy", "acl_down_policy", "acl.down_policy")
	add(Duration, false, "acl_ttl", "acl.token_ttl")
	add(Bool, false, "enable_acl_replication", "acl.enable_token_replication", "acl_enable_key_list_policy", "acl.enable_key_list_policy")
	add(String, false, "ca_file", "tls.defaults.ca_file", "ca_path", "tls.defaults.ca_path", "cert_file", "tls.defaults.cert_file",
		"key_file", "tls.defaults.key_file", "tls_min_version", "tls.defaults.tls_min_version", "tls_cipher_suites", "tls.defaults.tls_cipher_suites")
	add(Bool, false, "verify_incoming", "tls.defaults.verify_incoming", "verify_incoming_rpc", "tls.internal_rpc.verify_incoming",
		"verify_incoming_https", "tls.https.verify_incoming", "verify_outgoing", "tls.defaults.verify_outgoing",
		"verify_server_hostname", "tls.internal_rpc.verify_server_hostname")
	add(Bool, false, "ui", "ui_config.enabled")
	add(String, false, "ui_dir", "ui_config.dir", "ui_content_path", "ui_config.content_path")
	for i := range keys {
		switch keys[i].Path {
		case "ui":
			keys[i].Flag = "ui"
		case "ui_dir":
			keys[i].Flag = "ui-dir"
		case "ui_content_path":
			keys[i].Flag = "ui-content-path"
		}
	}
	// Names that Consul refuses by now. Refusing to resolve names over them
	// helps nobody.
	keys = append(keys, Key{Path: "recursor", Status: Legacy, Goes: "recursors", Doc: "Old name, of one server.", check: checkRecursor})
	for old, now := range map[string]string{"statsd_addr": "telemetry.statsd_address", "statsite_addr": "telemetry.statsite_address", "statsite_prefix": "telemetry.metrics_prefix", "dogstatsd_addr": "telemetry.dogstatsd_addr"} {
		keys = append(keys, Key{Path: old, Status: Legacy, Goes: now, Doc: "Old name."})
	}
	for _, name := range []string{"atlas_acl_token", "atlas_endpoint", "atlas_infrastructure", "atlas_join", "atlas_token"} {
		keys = append(keys, Key{Path: name, Type: Any, Secret: true, Status: Ignored, Note: "Atlas is gone", Doc: "Of a service that is gone."})
	}
	return keys
}
