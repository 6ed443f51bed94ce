package clustertest

import (
	"testing"
	"time"
)

func TestStart(t *testing.T) {
	Run(t, Options{Servers: 3, Agents: 4}, func(c *Cluster) {
		c.StartAll()
		time.Sleep(10 * time.Second)
	})
}
