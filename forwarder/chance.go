package forwarder

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// chance is cryptographic random numbers, fetched from the kernel many at a time: a
// call for each would cost as much as sending the question.
type chance struct {
	mu  sync.Mutex
	buf [512]byte
	n   int // bytes of buf that are left, at its end
}

// uint16 returns a number that nobody can guess. It may be called concurrently.
func (c *chance) uint16() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		rand.Read(c.buf[:]) // which ends the process where there is no chance to be had
		c.n = len(c.buf)
	}
	at := c.buf[len(c.buf)-c.n:][:2]
	n := binary.NativeEndian.Uint16(at)
	clear(at)
	c.n -= 2
	return n
}
