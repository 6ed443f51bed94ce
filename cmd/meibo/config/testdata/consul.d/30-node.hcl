check = {
  id       = "mem-util"
  name     = "Memory utilization"
  args     = ["/usr/local/bin/check_mem.py", "-limit", "256MB"]
  interval = "10s"
  timeout  = "1s"
}
watches = [{ type = "keyprefix", prefix = "app/", args = ["/usr/local/bin/on-change"] }]
