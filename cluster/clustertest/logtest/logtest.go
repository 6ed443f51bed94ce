// Package logtest keeps what is logged for tests to read.
package logtest

import (
	"strings"
	"sync"
)

// Text is what was written. It is safe for concurrent use; its zero value is empty.
type Text struct {
	mu   sync.Mutex // guards following
	text strings.Builder
}

// Write implements io.Writer.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// String is what was written since the last Take.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Take is String, and empties it.
func (t *Text) Take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.text.Reset()
	return t.text.String()
}
