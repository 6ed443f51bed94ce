package link

import (
	"sync"
	"time"
)

const (
	// complainEvery is how often the same is said.
	complainEvery = time.Minute
	// maxComplaints bounds what is remembered of that: strangers choose how many
	// addresses they come from. Beyond it nothing new is said within the minute.
	maxComplaints = 128
)

// complaints remembers what was said, so that a stranger cannot fill the log.
type complaints struct {
	mu   sync.Mutex // guards following
	said map[string]time.Time
}

// may reports whether it is time to say this (again).
func (c *complaints) may(what string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.said[what]; ok && now.Sub(at) < complainEvery {
		return false
	}
	if len(c.said) >= maxComplaints {
		for k, at := range c.said {
			if now.Sub(at) >= complainEvery {
				delete(c.said, k)
			}
		}
		if len(c.said) >= maxComplaints {
			return false
		}
	}
	if c.said == nil {
		c.said = make(map[string]time.Time)
	}
	c.said[what] = now
	return true
}
