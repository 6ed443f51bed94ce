services {
  name = "postgres"
  id   = "postgres-a"
  port = 5432
  tags = ["primary"]
  checks = [
    {
      id       = "pg-tcp"
      tcp      = "localhost:5432"
      interval = "500ms"
      timeout  = "1s"
    },
    {
      id                                = "pg-script"
      script                            = "/usr/local/bin/check_pg | grep -q ok"
      interval                          = "30s"
      deregister_critical_service_after = "30s"
    }
  ]
}

services {
  name = "redis_cache"
  port = 6379
  check { ttl = "15s" notes = "cron" }
}

services {
  name = "postgres"
  id   = "postgres-a"
  port = 5433
}
