// Package check runs health checks: HTTP, TCP, UDP, gRPC, HTTP/2 ping, scripts,
// units of the service manager, aliases, and time-to-live.
//
// A [Runner] runs one [Definition] over and over, counts the results against
// its thresholds, and gives each status that counts to a function. Runners
// share [Slots], so that a host with thousands of checks never runs more than a
// few at once. One run is bounded in time and in bytes kept; it inherits no
// proxy, and never dials the address of a cloud's metadata service.
//
// The package knows neither what a check belongs to nor where results go.
package check
