package config

import (
	"strings"
	"testing"
)

func TestKeys_HoldTogether(t *testing.T) {
	flags := map[string]string{}
	for name, tab := range tables {
		seen := map[string]bool{}
		for _, k := range tab.keys {
			path := strings.TrimPrefix(name+"."+k.Path, ".")
			if seen[k.Path] {
				t.Errorf("%s: twice", path)
			}
			seen[k.Path] = true
			if k.Path != strings.ToLower(k.Path) {
				t.Errorf("%s: not in lower case, so nothing matches it", path)
			}
			if k.Doc == "" {
				t.Errorf("%s: no documentation", path)
			}
			if k.Status == Legacy && tab.byPath[k.Goes] == nil {
				t.Errorf("%s: stands for %q, which is no key", path, k.Goes)
			}
			if (k.Status == Used || k.Status == Waiting) && k.Goes == "" {
				t.Errorf("%s: nobody uses it", path)
			}
			if (k.Status == Planned || k.Status == Ignored || k.Status == Guard) && k.Note == "" {
				t.Errorf("%s: no note for the warning", path)
			}
			if (k.Type == Blocks || k.Type == Named) && tables[k.Of] == nil {
				t.Errorf("%s: no table %q", path, k.Of)
			}
			if k.Flag != "" {
				if other := flags[k.Flag]; other != "" {
					t.Errorf("-%s: of %s and of %s", k.Flag, path, other)
				}
				flags[k.Flag] = path
			}
			if tab.groups[k.Path] {
				t.Errorf("%s: a key and a block", path)
			}
			k.defaultValue() // panics if the default is not of the type
		}
	}
	if len(Keys()) < 350 {
		t.Errorf("%d keys", len(Keys()))
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"port", "prot", 1}, {"recursors", "recursrs", 1}, {"abc", "xyz", 3}} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		ok   bool
	}{{"0", 0, true}, {"4096", 4096, true}, {"16MiB", 16 << 20, true}, {"16 mib", 16 << 20, true}, {"1kB", 1000, true}, {"5b", 5, true}, {"-1", 0, false}, {"MiB", 0, false}, {"99999999999GiB", 0, false}} {
		if got, ok := parseSize(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %d, %v", tt.in, got, ok)
		}
	}
}

// consulsKeys are the keys of Consul 1.21: groups, then the names in each.
const consulsKeys = `
: alt_domain advertise_addr advertise_addr_ipv4 advertise_addr_ipv6 advertise_addr_wan advertise_addr_wan_ipv4 advertise_addr_wan_ipv6
: advertise_reconnect_timeout auto_config auto_encrypt auto_reload_config bind_addr bootstrap bootstrap_expect check checks
: check_output_max_size check_update_interval client_addr cloud config_entries connect data_dir datacenter default_intention_policy
: default_query_time disable_anonymous_signature disable_coordinates disable_host_node_id disable_http_unprintable_char_filter
: disable_keyring_file disable_remote_exec disable_update_check discard_check_output discovery_max_stale domain
: enable_agent_tls_for_checks enable_central_service_config enable_debug enable_local_script_checks enable_script_checks enable_syslog
: encrypt encrypt_verify_incoming encrypt_verify_outgoing experiments leave_on_terminate license_path log_file log_json log_level
: log_rotate_bytes log_rotate_duration log_rotate_max_files log_sublevels max_query_time node_id node_meta node_name non_voting_server
: partition peering pid_file primary_datacenter primary_gateways primary_gateways_interval protocol raft_boltdb raft_logstore
: raft_prevote_disabled raft_protocol raft_snapshot_interval raft_snapshot_threshold raft_trailing_logs read_replica reconnect_timeout
: reconnect_timeout_wan recursors rejoin_after_leave reporting retry_interval retry_interval_wan retry_join retry_join_wan retry_max
: retry_max_wan segment segments serf_lan serf_lan_allowed_cidrs serf_wan serf_wan_allowed_cidrs server server_name
: server_rejoin_age_max service services session_ttl_min skip_leave_on_interrupt snapshot_agent start_join start_join_wan
: syslog_facility tagged_addresses translate_wan_addrs ui ui_content_path ui_dir use_streaming_backend watches xds audit
: acl_agent_master_token acl_agent_token acl_datacenter acl_default_policy acl_down_policy acl_enable_key_list_policy
: acl_enforce_version_8 acl_master_token acl_replication_token acl_token acl_ttl enable_acl_replication ca_file ca_path cert_file
: key_file tls_cipher_suites tls_min_version verify_incoming verify_incoming_https verify_incoming_rpc verify_outgoing
: verify_server_hostname ae_interval check_deregister_interval_min check_reap_interval consul revision version build_date
acl: default_policy down_policy enable_key_list_policy enable_token_persistence enable_token_replication enabled
acl: msp_disable_bootstrap policy_ttl role_ttl token_ttl
acl.tokens: agent agent_master agent_recovery config_file_service_registration default dns initial_management
acl.tokens: managed_service_provider master replication
addresses: dns grpc grpc_tls http https
autopilot: cleanup_dead_servers disable_upgrade_migration last_contact_threshold max_trailing_logs min_quorum
autopilot: redundancy_zone_tag server_stabilization_time upgrade_version_tag
cache: entry_fetch_max_burst entry_fetch_rate
dns_config: a_record_limit allow_stale cache_max_age disable_compression enable_additional_node_meta_txt enable_truncate
dns_config: max_stale node_ttl only_passing prefer_namespace recursor_strategy recursor_timeout service_ttl udp_answer_limit use_cache
dns_config.soa: expire min_ttl refresh retry
gossip_lan: gossip_interval gossip_nodes probe_interval probe_timeout retransmit_mult suspicion_mult
gossip_wan: gossip_interval gossip_nodes probe_interval probe_timeout retransmit_mult suspicion_mult
http_config: allow_write_http_from block_endpoints max_header_bytes response_headers use_cache
limits: http_max_conns_per_client https_handshake_timeout kv_max_value_size rpc_client_timeout rpc_handshake_timeout
limits: rpc_max_burst rpc_max_conns_per_client rpc_rate txn_max_req_len
limits.request_limits: mode read_rate write_rate
locality: region zone
performance: enable_xds_load_balancing grpc_keepalive_interval grpc_keepalive_timeout leave_drain_time raft_multiplier rpc_hold_timeout
ports: dns expose_max_port expose_min_port grpc grpc_tls http https proxy_max_port proxy_min_port serf_lan serf_wan server
ports: sidecar_max_port sidecar_min_port
rpc: enable_streaming
telemetry: circonus_api_app circonus_api_token circonus_api_url circonus_broker_id circonus_broker_select_tag
telemetry: circonus_check_display_name circonus_check_force_metric_activation circonus_check_id circonus_check_instance_id
telemetry: circonus_check_search_tag circonus_check_tags circonus_submission_interval circonus_submission_url disable_hostname
telemetry: disable_per_tenancy_usage_metrics dogstatsd_addr dogstatsd_tags enable_host_metrics filter_default metrics_prefix
telemetry: prefix_filter prometheus_retention_time retry_failed_connection statsd_address statsite_address
tls.defaults: ca_file ca_path cert_file key_file tls_cipher_suites tls_min_version verify_incoming verify_outgoing verify_server_hostname
tls.grpc: ca_file ca_path cert_file key_file tls_cipher_suites tls_min_version use_auto_cert verify_incoming
tls.https: ca_file ca_path cert_file key_file tls_cipher_suites tls_min_version verify_incoming verify_outgoing
tls.internal_rpc: ca_file ca_path cert_file key_file tls_cipher_suites tls_min_version verify_incoming verify_outgoing verify_server_hostname
ui_config: content_path dashboard_url_templates dir enabled metrics_provider metrics_provider_files metrics_provider_options_json metrics_proxy
unix_sockets: group mode user`

func TestKeys_ConsulsAreKnown(t *testing.T) {
	count := 0
	for line := range strings.Lines(consulsKeys) {
		group, names, _ := strings.Cut(strings.TrimSpace(line), ":")
		for _, name := range strings.Fields(names) {
			path := strings.TrimPrefix(group+"."+name, ".")
			if count++; tables[""].byPath[path] == nil {
				t.Errorf("%s is not known", path)
			}
		}
	}
	if count < 280 {
		t.Errorf("%d keys", count)
	}
}
