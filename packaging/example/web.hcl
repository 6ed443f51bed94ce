# Two instances of one service, told apart by tag. No checks: an instance without one counts as passing.
services = [
  {
    id      = "web-1"
    name    = "web"
    tags    = ["primary"]
    address = "127.0.0.1"
    port    = 8081
    meta    = { version = "1.4" }
  },
  {
    id      = "web-2"
    name    = "web"
    tags    = ["canary"]
    address = "127.0.0.2"
    port    = 8082
    weights = { passing = 3, warning = 1 }
  },
]
