// Package apitest drives a running daemon with Consul's own Go client and its watches, the
// way programs written for Consul do. It holds tests only, and knows the daemon by its
// address alone: set MEIBO_TEST_HTTP_ADDR and run go test here. Without the variable the
// tests fail, unless -short says that they needn't run.
package apitest
