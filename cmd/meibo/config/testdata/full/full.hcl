# Every key of an agent's configuration, with values of a real look. The old
# names and the ones that exclude others are in legacy.hcl.
node_name                 = "app-17"
node_id                   = "3c1f2d7e-6b5a-4f0e-9d8c-0a1b2c3d4e5f"
node_meta                 = { rack = "r12", "os_release" = "12" }
datacenter                = "EU-1"
primary_datacenter        = "eu-1"
data_dir                  = "/var/lib/consul"
pid_file                  = "/run/consul.pid"
auto_reload_config        = true
enable_debug              = true
disable_host_node_id      = true
locality { region = "eu-west-1" zone = "eu-west-1a" }

bind_addr               = "10.0.0.17"
advertise_addr          = "10.0.0.17"
advertise_addr_ipv4     = "10.0.0.17"
advertise_addr_ipv6     = "fd00::17"
advertise_addr_wan      = "192.0.2.17"
advertise_addr_wan_ipv4 = "192.0.2.17"
advertise_addr_wan_ipv6 = "2001:db8::17"
tagged_addresses        = { storage = "10.9.0.17" }
translate_wan_addrs     = true
client_addr             = "127.0.0.1 ::1"
serf_lan                = "10.0.0.17"
serf_wan                = "10.0.0.17"
addresses {
  dns      = "127.0.0.1"
  http     = "127.0.0.1 unix:///run/consul/http.sock"
  https    = "10.0.0.17"
  grpc     = "127.0.0.1"
  grpc_tls = "127.0.0.1"
}
ports {
  dns              = 53
  http             = 8500
  https            = 8501
  server           = 8300
  serf_lan         = 8301
  serf_wan         = 8302
  grpc             = 8502
  grpc_tls         = 8503
  proxy_min_port   = 2000
  proxy_max_port   = 2255
  sidecar_min_port = 21000
  sidecar_max_port = 21255
  expose_min_port  = 21500
  expose_max_port  = 21755
  rpc              = 8400
}

domain     = "consul"
alt_domain = "corp-consul"
recursors  = ["10.0.0.2", "10.0.0.3:5353", "fd00::2", "[fd00::3]:5353"]
dns_config {
  allow_stale                     = true
  max_stale                       = "87600h"
  node_ttl                        = "30s"
  service_ttl                     = { "*" = "5s", "web*" = "10s", db = "1m" }
  enable_truncate                 = true
  only_passing                    = true
  recursor_strategy               = "random"
  recursor_timeout                = "1s"
  disable_compression             = false
  udp_answer_limit                = 3
  a_record_limit                  = 8
  enable_additional_node_meta_txt = false
  soa { refresh = 3600 retry = 600 expire = 86400 min_ttl = 10 }
  use_cache        = true
  cache_max_age    = "5m"
  prefer_namespace = false
}

http_config {
  response_headers      = { "X-Frame-Options" = "DENY" }
  block_endpoints       = ["/v1/event"]
  allow_write_http_from = ["127.0.0.0/8", "10.1.2.3/16"]
  max_header_bytes      = 1048576
  use_cache             = true
}
unix_sockets { user = "consul" group = "consul" mode = "0660" }
default_query_time                   = "300s"
max_query_time                       = "600s"
discovery_max_stale                  = "10s"
disable_http_unprintable_char_filter = false

check {
  id       = "disk"
  name     = "disk"
  notes    = "root is not full"
  args     = ["/usr/lib/checks/disk", "-w", "20"]
  interval = "1m"
  timeout  = "5s"
  token    = "0d4f1a52-0000-4000-8000-00000000000d"
}
checks = [
  { name = "alive", ttl = "30s", status = "passing", deregister_critical_service_after = "72h" },
  { name = "disk of pg", service_id = "pg", os_service = "postgresql", interval = "10s" },
]
service {
  id                  = "web-1"
  name                = "web"
  tags                = ["v1", "primary"]
  address             = "10.0.0.17"
  port                = 8080
  socket_path         = ""
  tagged_addresses    = { lan = { address = "10.0.0.17", port = 8080 }, lan_ipv6 = { address = "fd00::17", port = 8080 }, wan { address = "192.0.2.17" port = 80 } }
  meta                = { version = "1.4.2" }
  weights             = { passing = 10, warning = 1 }
  enable_tag_override = true
  token               = "0d4f1a52-0000-4000-8000-00000000000a"
  kind                = ""
  namespace           = "default"
  partition           = "default"
  locality { region = "eu-west-1" zone = "eu-west-1a" }
  connect { native = false }
  check {
    id                       = "web-http"
    name                     = "answers"
    http                     = "https://10.0.0.17:8080/health"
    method                   = "POST"
    header                   = { Authorization = ["Bearer 3ec6e7"], Host = ["web"] }
    body                     = "{}"
    disable_redirects        = true
    tls_skip_verify          = true
    tls_server_name          = "web.corp"
    interval                 = "10s"
    timeout                  = "2s"
    output_max_size          = 1024
    success_before_passing   = 2
    failures_before_warning  = 1
    failures_before_critical = 3
  }
  checks = [
    { tcp = "10.0.0.17:8080", tcp_use_tls = true, interval = "10s" },
    { udp = "10.0.0.17:8080", interval = "10s" },
    { grpc = "10.0.0.17:8080/web", grpc_use_tls = true, interval = "10s" },
    { h2ping = "10.0.0.17:8080", h2ping_use_tls = false, interval = "10s" },
    { alias_service = "pg", alias_node = "app-17" },
    { docker_container_id = "f972c95ebf0e", shell = "/bin/sh", args = ["true"], interval = "10s", namespace = "default", partition = "default" },
  ]
}
services = [
  { name = "pg", port = 5432 },
  { name = "web-proxy", kind = "connect-proxy", port = 20000, proxy { destination_service_name = "web" config { x = 1 } upstreams = [{ destination_name = "pg", local_bind_port = 5000 }] } },
]
watches = [
  { type = "key", key = "config/web", args = ["/usr/lib/reload", "web"] },
  { type = "service", service = "pg", handler_type = "http", http_handler_config { path = "http://127.0.0.1:8080/pg" } },
]

enable_script_checks          = false
enable_local_script_checks    = true
check_update_interval         = "5m"
check_output_max_size         = 4096
discard_check_output          = false
enable_agent_tls_for_checks   = false
ae_interval                   = "1m"
check_reap_interval           = "30s"
check_deregister_interval_min = "1m"

server                      = true
bootstrap                   = false
bootstrap_expect            = 3
encrypt                     = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="
encrypt_verify_incoming     = true
encrypt_verify_outgoing     = true
disable_keyring_file        = false
retry_join                  = ["10.0.0.18", "servers.example:8301"]
retry_interval              = "10s"
retry_max                   = 0
retry_join_wan              = ["192.0.2.99"]
retry_interval_wan          = "30s"
retry_max_wan               = 0
rejoin_after_leave          = true
leave_on_terminate          = false
skip_leave_on_interrupt     = true
reconnect_timeout           = "72h"
reconnect_timeout_wan       = "72h"
advertise_reconnect_timeout = "8h"
serf_lan_allowed_cidrs      = ["10.0.0.0/8"]
serf_wan_allowed_cidrs      = ["192.0.2.0/24"]
session_ttl_min             = "10s"
server_rejoin_age_max       = "168h"
disable_remote_exec         = true
disable_coordinates         = false
read_replica                = false

performance {
  enable_xds_load_balancing = true
  raft_multiplier         = 1
  leave_drain_time        = "5s"
  rpc_hold_timeout        = "7s"
  grpc_keepalive_interval = "30s"
  grpc_keepalive_timeout  = "20s"
}
limits {
  http_max_conns_per_client = 200
  https_handshake_timeout   = "5s"
  rpc_handshake_timeout     = "5s"
  rpc_client_timeout        = "60s"
  rpc_max_conns_per_client  = 100
  rpc_rate                  = 12029.43
  rpc_max_burst             = 1000
  kv_max_value_size         = 524288
  txn_max_req_len           = 524288
  request_limits { mode = "permissive" read_rate = 99.5 write_rate = 10 }
}
gossip_lan { gossip_nodes = 3 gossip_interval = "200ms" probe_interval = "1s" probe_timeout = "500ms" suspicion_mult = 4 retransmit_mult = 4 hold_down = "4s" hold_down_max = "2m" }
gossip_wan { gossip_nodes = 3 gossip_interval = "500ms" probe_interval = "5s" probe_timeout = "3s" suspicion_mult = 6 retransmit_mult = 4 }
autopilot {
  cleanup_dead_servers      = true
  last_contact_threshold    = "200ms"
  max_trailing_logs         = 250
  min_quorum                = 3
  server_stabilization_time = "10s"
  disable_upgrade_migration = false
  redundancy_zone_tag       = "zone"
  upgrade_version_tag       = "build"
}
raft_snapshot_threshold = 16384
raft_snapshot_interval  = "30s"
raft_trailing_logs      = 10240
raft_prevote_disabled   = false
raft_protocol           = 3
protocol                = 2
raft_logstore {
  backend           = "wal"
  disable_log_cache = false
  verification { enabled = true interval = "60s" }
  boltdb { no_freelist_sync = true }
  wal { segment_size_mb = 64 }
}
raft_boltdb { NoFreelistSync = true }

acl {
  enabled                  = true
  default_policy           = "deny"
  down_policy              = "extend-cache"
  token_ttl                = "30s"
  policy_ttl               = "30s"
  role_ttl                 = "60s"
  enable_token_replication = true
  enable_token_persistence = true
  enable_key_list_policy   = true
  disabled_ttl             = "30s"
  msp_disable_bootstrap    = false
  tokens {
    initial_management               = "0d4f1a52-0000-4000-8000-000000000001"
    agent                            = "0d4f1a52-0000-4000-8000-000000000002"
    agent_recovery                   = "0d4f1a52-0000-4000-8000-000000000003"
    default                          = "0d4f1a52-0000-4000-8000-000000000004"
    replication                      = "0d4f1a52-0000-4000-8000-000000000005"
    dns                              = "0d4f1a52-0000-4000-8000-000000000006"
    config_file_service_registration = "0d4f1a52-0000-4000-8000-000000000007"
    managed_service_provider         = [{ accessor_id = "first", secret_id = "0d4f1a52-0000-4000-8000-000000000008" }]
  }
}
tls {
  defaults {
    ca_file                = "/etc/consul/ca.pem"
    ca_path                = "/etc/consul/ca"
    cert_file              = "/etc/consul/cert.pem"
    key_file               = "/etc/consul/key.pem"
    tls_min_version        = "TLSv1_2"
    tls_cipher_suites      = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    verify_incoming        = true
    verify_outgoing        = true
    verify_server_hostname = true
    use_auto_cert          = false
  }
  internal_rpc {
    ca_file                = "/etc/consul/ca.pem"
    ca_path                = "/etc/consul/ca"
    cert_file              = "/etc/consul/cert.pem"
    key_file               = "/etc/consul/key.pem"
    tls_min_version        = "TLSv1_3"
    tls_cipher_suites      = ""
    verify_incoming        = true
    verify_outgoing        = true
    verify_server_hostname = true
    use_auto_cert          = false
  }
  https {
    ca_file                = "/etc/consul/ca.pem"
    ca_path                = "/etc/consul/ca"
    cert_file              = "/etc/consul/https.pem"
    key_file               = "/etc/consul/https.key"
    tls_min_version        = "TLSv1_2"
    tls_cipher_suites      = ""
    verify_incoming        = false
    verify_outgoing        = true
    verify_server_hostname = false
    use_auto_cert          = false
  }
  grpc {
    ca_file                = "/etc/consul/ca.pem"
    ca_path                = "/etc/consul/ca"
    cert_file              = "/etc/consul/grpc.pem"
    key_file               = "/etc/consul/grpc.key"
    tls_min_version        = "TLSv1_2"
    tls_cipher_suites      = ""
    verify_incoming        = true
    verify_outgoing        = true
    verify_server_hostname = false
    use_auto_cert          = true
  }
}

log_level            = "warn"
log_sublevels        = { raft = "debug" }
log_json             = true
log_file             = "/var/log/consul/"
log_rotate_bytes     = 1000000
log_rotate_duration  = "24h"
log_rotate_max_files = 5
enable_syslog        = true
syslog_facility      = "LOCAL5"

telemetry {
  prometheus_retention_time              = "15s"
  metrics_prefix                         = "consul"
  disable_hostname                       = true
  prefix_filter                          = ["+consul.raft", "-consul.http"]
  filter_default                         = true
  enable_host_metrics                    = true
  disable_per_tenancy_usage_metrics      = true
  statsd_address                         = "127.0.0.1:8125"
  statsite_address                       = "127.0.0.1:8126"
  dogstatsd_addr                         = "127.0.0.1:8127"
  dogstatsd_tags                         = ["env:test"]
  retry_failed_connection                = true
  circonus_api_app                       = "app"
  circonus_api_token                     = "0d4f1a52-0000-4000-8000-000000000009"
  circonus_api_url                       = "https://api.example"
  circonus_broker_id                     = "1"
  circonus_broker_select_tag             = "t"
  circonus_check_display_name            = "n"
  circonus_check_force_metric_activation = "false"
  circonus_check_id                      = "2"
  circonus_check_instance_id             = "i"
  circonus_check_search_tag              = "s"
  circonus_check_tags                    = "a,b"
  circonus_submission_interval           = "10s"
  circonus_submission_url                = "https://submit.example"
}

ui_config {
  enabled                       = true
  dir                           = "/srv/ui"
  content_path                  = "/ui/"
  metrics_provider              = "prometheus"
  metrics_provider_files        = ["/srv/p.js"]
  metrics_provider_options_json = "{}"
  metrics_proxy { base_url = "http://prometheus" add_headers = [{ name = "Authorization", value = "Bearer 77f0" }] path_allowlist = ["/api"] }
  dashboard_url_templates { service = "http://grafana/{{Service.Name}}" }
  hcp_enabled = false
}
cache { entry_fetch_max_burst = 42 entry_fetch_rate = 0.334 }
rpc { enable_streaming = true }
use_streaming_backend       = true
disable_update_check        = true
disable_anonymous_signature = true
snapshot_agent { snapshot { interval = "1h" } }
experiments = ["resource-apis"]

connect {
  enabled     = true
  ca_provider = "consul"
  ca_config { leaf_cert_ttl = "72h" csr_max_per_second = 100.0 }
  enable_mesh_gateway_wan_federation = false
}
config_entries {
  # repeated blocks make a list
  bootstrap { kind = "proxy-defaults" name = "global" config { foo = "bar" } }
  bootstrap { kind = "service-defaults" name = "web" protocol = "http" }
}
xds { update_max_per_second = 9526.2 }
enable_central_service_config = true
default_intention_policy      = "deny"
primary_gateways              = ["10.0.0.1:8443"]
primary_gateways_interval     = "30s"
peering { enabled = true }
cloud { resource_id = "r" client_id = "c" client_secret = "0d4f1a52-0000-4000-8000-00000000000b" hostname = "h" auth_url = "a" scada_address = "s" }
auto_encrypt { tls = true allow_tls = true dns_san = ["a.example"] ip_san = ["192.0.2.1"] }
auto_config {
  enabled          = false
  intro_token      = "0d4f1a52-0000-4000-8000-00000000000c"
  intro_token_file = "/x"
  server_addresses = ["10.0.0.18"]
  authorization { enabled = true static { bound_issuer = "consul" claim_mappings { node = "node" } claim_assertions = ["value.node == \"${node}\""] } }
}
audit { enabled = true sink "all events" { type = "file" format = "json" path = "/var/log/audit.json" rotate_bytes = 1 } }
license_path              = "/etc/consul/license"
reporting                 = { license = { enabled = false } }
segment                   = ""
segments                  = []
segment_limit             = 64
segment_name_limit        = 64
partition                 = "default"
namespace                 = "default"
license_poll_base_time    = "1h"
license_poll_max_time     = "1h"
license_update_base_time  = "1h"
license_update_max_time   = "1h"
consul { coordinate { update_max_batches = 5 update_batch_size = 128 update_period = "5s" } raft { election_timeout = "1s" } server { health_interval = "2s" } }
revision                     = "abc"
version                      = "1.21.0"
version_prerelease           = ""
version_metadata             = ""
build_date                   = "2026-01-01T00:00:00Z"
sync_coordinate_interval_min = "15s"
sync_coordinate_rate_target  = 64.0
server_name                  = "app-17"

# meibo's own
cache_dir = "/var/cache/meibo"
listen    = ["127.0.0.1:53", "[::1]:53", "192.0.2.7"]
cache {
  max_bytes        = "32MiB"
  max_entries      = 100000
  min_ttl          = "0s"
  max_ttl          = "24h"
  negative_max_ttl = "5m"
  negative_ttl     = "1m"
  max_client_ttl   = "1h"
  stale            = "24h"
  persist          = true
}
forward "corp.example" {
  servers  = ["10.0.0.2", "10.0.0.3:53"]
  mode     = "strict"
  trust_ad = true
}
forward "10.in-addr.arpa" { servers = ["10.0.0.2"] }
forward "ads.example" { addresses = ["0.0.0.0", "::"] }
forward "lan" { local = true }
forward "secure.example" {
  servers  = ["9.9.9.9", "10.0.0.5:8853"]
  fallback = ["10.0.0.6"]
  tls_name = "dns.quad9.example"
  tls_pins = ["sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
}
forward "perhaps.example" { servers = ["10.0.0.7"] tls_opportunistic = true }
hosts {
  files   = ["/etc/hosts", "/etc/hosts.d"]
  records = ["nas.home A 192.0.2.7", "nas.home 300 TXT \"attic\""]
  domain  = "lan"
  ttl     = "30s"
  type_transparent = true
}
filter {
  types               = ["AAAA"]
  domain_needed       = true
  bogus_priv          = "on"
  bogus_nxdomain      = ["64.94.110.11", "198.51.100.0/24"]
  stop_dns_rebind     = true
  rebind_domain_ok    = ["plex.direct"]
  rebind_localhost_ok = true
}
view { whole_below = "2MiB" keep = "720h" max_stale = "10s" stale_answer = "servfail" }
http_config { allowed_hosts = ["consul.corp.example"]  operator = "open" }
allow_recursion = ["10.0.0.0/8"]
resolv_file = "/run/resolvconf/resolv.conf"
