package config

var logKeys = []Key{
	{Path: "log_level", Default: "INFO", Flag: "log-level", Choices: []string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR"}, spellings: levelNames, Reload: true, Goes: "cmd/meibo", Doc: "Least level that is logged."},
	{Path: "log_sublevels", Type: StringMap, Reload: true, check: checkLevels, Goes: "cmd/meibo/logging", Doc: "Levels by part, where they differ: by the path of the package (\"cluster.gossip\", \"resolver\"), its last word, or Consul's name (\"agent.server.serf\")."},
	{Path: "log_json", Type: Bool, Default: "false", Flag: "log-json", Goes: "cmd/meibo/logging", Doc: "Log lines as JSON."},
	{Path: "log_file", Flag: "log-file", Goes: "cmd/meibo/logging", Doc: "Log to files too: \"/var/log/host.log\" makes /var/log/host-TIME.log, a directory (or what ends in /) DIR/meibo-TIME.log."},
	{Path: "log_rotate_bytes", Type: Int, Default: "0", Range: "0..", Flag: "log-rotate-bytes", Goes: "cmd/meibo/logging", Doc: "Begin a new file after so many bytes; 0 never."},
	{Path: "log_rotate_duration", Type: Duration, Default: "24h", Range: "0s..", Flag: "log-rotate-duration", Goes: "cmd/meibo/logging", Doc: "Begin a new file after this time; 0s after 24h."},
	{Path: "log_rotate_max_files", Type: Int, Default: "0", Range: "-1..", Flag: "log-rotate-max-files", Goes: "cmd/meibo/logging", Doc: "Old files that are kept; 0 keeps all, -1 none."},
	{Path: "enable_syslog", Type: Bool, Default: "false", Flag: "syslog", Goes: "cmd/meibo/logging", Doc: "Log to syslog too."},
	{Path: "syslog_facility", Default: "LOCAL0", Choices: []string{"KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
		"LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7"}, Goes: "cmd/meibo/logging", Doc: "Facility of those messages."},
}

// levelNames are levels' names besides those of the table.
var levelNames = map[string]string{"ERR": "ERROR", "WARNING": "WARN"}

// checkLevels wants a level for each part.
func checkLevels(v any) string {
	for _, name := range v.(map[string]string) {
		if _, ok := parseLevel(name); !ok {
			return "levels of TRACE, DEBUG, INFO, WARN, ERROR"
		}
	}
	return ""
}

func telemetryKeys() []Key {
	const noPush = "metrics are not pushed; read them from /metrics or /v1/agent/metrics"
	keys := []Key{
		{Path: "prometheus_retention_time", Type: Duration, Default: "60s", Range: "0s..", Goes: "cluster/httpapi", Doc: "0s refuses Prometheus' format at /v1/agent/metrics. Values are always those of now, and /metrics is always served."},
		{Path: "metrics_prefix", Default: "meibo", Goes: "cluster/httpapi", Doc: "First word of the names of our own metrics, in place of meibo. Consul's default is consul."},
		{Path: "disable_hostname", Type: Bool, Default: "false", Status: Moot, Doc: "Metrics never bear the host's name."},
		{Path: "prefix_filter", Type: Strings, Status: Planned, Note: "metrics are not filtered", Reload: true, Doc: "Metrics to show (+) or leave out (-)."},
		{Path: "filter_default", Type: Bool, Default: "true", Status: Planned, quiet: isTrue, Note: "metrics are not filtered", Reload: true, Doc: "Show metrics without a filter."},
		{Path: "enable_host_metrics", Type: Bool, Status: Planned, Note: "metrics of the host are not served", Doc: "Metrics of the host."},
		{Path: "disable_per_tenancy_usage_metrics", Type: Bool, Status: Moot, Doc: "Metrics by partition."},
		{Path: "statsd_address", Status: Planned, Note: noPush, Doc: "Server for statsd."},
		{Path: "statsite_address", Status: Planned, Note: noPush, Doc: "Server for statsite."},
		{Path: "dogstatsd_addr", Status: Planned, Note: noPush, Doc: "Server for dogstatsd."},
		{Path: "dogstatsd_tags", Type: Strings, Status: Planned, Note: noPush, Doc: "Tags for dogstatsd."},
		{Path: "retry_failed_connection", Type: Bool, Status: Moot, Doc: "Of pushed metrics."},
	}
	for _, name := range []string{"api_app", "api_token", "api_url", "broker_id", "broker_select_tag", "check_display_name", "check_force_metric_activation",
		"check_id", "check_instance_id", "check_search_tag", "check_tags", "submission_interval", "submission_url"} {
		keys = append(keys, Key{Path: "circonus_" + name, Secret: name == "api_token", Status: Ignored, Note: noPush, Doc: "Metrics for Circonus."})
	}
	return under("telemetry", keys...)
}

func otherKeys() []Key {
	const noUI = "the web interface cannot be branded or moved"
	keys := under("ui_config",
		Key{Path: "enabled", Type: Bool, Default: "false", Status: Planned, Note: "there is no web interface", Doc: "Serve the web interface."},
		Key{Path: "dir", Flag: "", Status: Ignored, Note: noUI, Doc: "Directory of a web interface."},
		Key{Path: "content_path", Status: Ignored, Note: noUI, Doc: "Path of the web interface."},
		Key{Path: "metrics_provider", Status: Ignored, Note: noUI, Doc: "Metrics in the web interface."},
		Key{Path: "metrics_provider_files", Type: Strings, Status: Ignored, Note: noUI, Doc: "Metrics in the web interface."},
		Key{Path: "metrics_provider_options_json", Status: Ignored, Note: noUI, Doc: "Metrics in the web interface."},
		Key{Path: "metrics_proxy", Type: Any, Status: Ignored, Note: noUI, Doc: "Metrics in the web interface."},
		Key{Path: "dashboard_url_templates", Type: StringMap, Status: Ignored, Note: noUI, Doc: "Links in the web interface."},
		Key{Path: "hcp_enabled", Type: Bool, Status: Ignored, Note: noUI, Doc: "Links to HCP."},
	)
	keys = append(keys,
		Key{Path: "cache.entry_fetch_max_burst", Type: Int, Status: Moot, Doc: "Of Consul's cache of RPCs."},
		Key{Path: "cache.entry_fetch_rate", Type: Number, Status: Moot, Doc: "Of Consul's cache of RPCs."},
		Key{Path: "rpc.enable_streaming", Type: Bool, Status: Moot, Doc: "Changes are always streamed."},
		Key{Path: "use_streaming_backend", Type: Bool, Status: Moot, Doc: "Changes are always streamed."},
		Key{Path: "disable_update_check", Type: Bool, Status: Moot, Doc: "No versions are asked for."},
		Key{Path: "disable_anonymous_signature", Type: Bool, Status: Moot, Doc: "No versions are asked for."},
		Key{Path: "acl_enforce_version_8", Type: Bool, Status: Moot, Doc: "Of old versions."},
		Key{Path: "acl_disabled_ttl", Type: Duration, Status: Moot, Doc: "Of old versions."},
		Key{Path: "tls_prefer_server_cipher_suites", Type: Bool, Status: Moot, Doc: "Of old versions."},
		Key{Path: "snapshot_agent", Type: Any, Secret: true, Status: Moot, Doc: "For another program that shares the files."},
		Key{Path: "experiments", Type: Strings, Status: Moot, Doc: "Consul's experiments."},
	)
	return keys
}

// ignoredKeys belong to parts that meibo does not have. What is in them is not
// looked at: a slip there harms nobody.
var ignoredKeys = func() []Key {
	var keys []Key
	add := func(note string, t Type, names ...string) {
		for _, n := range names {
			keys = append(keys, Key{Path: n, Type: t, Secret: true, Status: Ignored, Note: note, Doc: "Not part of meibo."})
		}
	}
	add(noMesh, Any, "connect", "config_entries", "xds", "enable_central_service_config", "default_intention_policy",
		"primary_gateways", "primary_gateways_interval")
	add("meibo has no peering", Any, "peering")
	add("meibo has no HCP", Any, "cloud")
	add("certificates are made from the encrypt key; no certificate is asked for", Any, "auto_encrypt")
	add("no configuration is fetched from servers", Any, "auto_config")
	add(enterprise, Any, "audit", "license_path", "reporting", "segment", "segments", "segment_limit", "segment_name_limit",
		"partition", "namespace", "license_poll_base_time", "license_poll_max_time", "license_update_base_time", "license_update_max_time")
	add("not for users to set", Any, "consul", "revision", "version", "version_prerelease", "version_metadata", "build_date",
		"ae_interval", "check_reap_interval", "check_deregister_interval_min", "sync_coordinate_interval_min", "sync_coordinate_rate_target", "server_name")
	for i := range keys {
		switch keys[i].Path {
		case "segment":
			keys[i].Type, keys[i].Flag = String, "segment"
		case "primary_gateways":
			keys[i].Type, keys[i].Flag = Strings, "primary-gateway"
		case "auto_encrypt", "segments", "partition", "namespace", "audit":
			keys[i].Status = Guard
		}
	}
	return keys
}()
