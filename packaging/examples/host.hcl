# /etc/meibo.d/host.hcl: a host of a cluster, with a service and its check.
datacenter = "dc1"
retry_join = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
encrypt    = "" # the cluster's key: `meibo keygen` makes one, `meibo keyring list` on a host of the cluster shows it

# Names under this suffix go to other servers than the rest.
forward "corp.example" {
  servers = ["10.0.0.53", "10.0.1.53"]
}

service {
  name = "web"
  port = 80
  check {
    http     = "http://127.0.0.1:80/health"
    interval = "10s"
    timeout  = "2s"
  }
}
