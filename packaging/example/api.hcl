# A service whose check passes: it asks this agent's own HTTP API.
service {
  name    = "api"
  address = "127.0.0.1"
  port    = 8500

  check {
    name     = "the API answers"
    http     = "http://127.0.0.1:8500/v1/status/leader"
    interval = "10s"
    timeout  = "2s"
  }
}
