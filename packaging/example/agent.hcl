# An example configuration, and what `make run` starts: a single host on ports that need no privilege.
# As a host's resolver it would say:  listen = ["127.0.0.1:53", "[::1]:53"]
datacenter = "dc1"
node_name  = "example"
bind_addr  = "127.0.0.1"

ports {
  dns  = 8600
  http = 8500
}

# Everything outside .consul goes to the upstreams of /etc/resolv.conf. To name them yourself:
# recursors = ["192.0.2.53", "198.51.100.53"]
# and for one suffix alone:
# forward "corp.example" { servers = ["10.0.0.53"] }

dns_config {
  service_ttl {
    "*" = "5s"
  }
}
