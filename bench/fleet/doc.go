// Package fleet runs fleets of daemons in namespaces, for what only kernels, disks and kill -9 can show.
package fleet
