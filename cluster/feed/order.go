package feed

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"
)

// order returns servers in the order in which this host prefers them. Each host
// has an order of its own, so that hosts spread evenly whichever servers there
// are, and when one comes or goes only those move that must. With careful set,
// those that failed lately come last.
func (c *Client) order(servers []string, careful bool) []string {
	weights := make(map[string][]byte, len(servers))
	for _, addr := range servers {
		sum := sha256.Sum256([]byte(c.cfg.NodeID + "\x00" + addr))
		weights[addr] = sum[:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for addr, at := range c.failed {
		if time.Since(at) >= avoided {
			delete(c.failed, addr)
		}
	}
	ordered := slices.Clone(servers)
	slices.SortFunc(ordered, func(a, b string) int {
		if careful { // who hasn't failed, then who failed longest ago
			if order := c.failed[a].Compare(c.failed[b]); order != 0 {
				return order
			}
		}
		return bytes.Compare(weights[a], weights[b])
	})
	return slices.Compact(ordered)
}

// avoid puts a server behind the others for a while.
func (c *Client) avoid(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed[addr] = time.Now()
}
