package check

import (
	"fmt"
	"strings"
)

// tail keeps the last max bytes written to it. It is an io.Writer that never
// fails. Not safe for concurrent use.
type tail struct {
	max  int
	kept []byte
	cut  bool
}

// Write keeps the end of p.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > t.max {
		p, t.kept, t.cut = p[len(p)-t.max:], t.kept[:0], true
	}
	if over := len(t.kept) + len(p) - t.max; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
		t.cut = true
	}
	t.kept = append(t.kept, p...)
	return n, nil
}

func (t *tail) String() string { return string(t.kept) }

// keepHead returns the first max bytes of s, less what is left of a rune that
// the cut went through. Bytes that are not UTF-8 are replaced, since outputs
// travel as JSON.
func keepHead(s string, max int) string {
	return strings.ToValidUTF8(s[:headOf(s, max)], "\uFFFD")
}

func headOf(s string, max int) int {
	if len(s) <= max {
		return len(s)
	}
	for max > 0 && s[max]&0xC0 == 0x80 {
		max--
	}
	return max
}

// captured is keepHead that says how much was cut, in Consul's words.
func captured(s string, max int) string {
	if len(s) <= max {
		return keepHead(s, max)
	}
	return fmt.Sprintf("%s ... (captured %d of %d bytes)", keepHead(s, max), headOf(s, max), len(s))
}
