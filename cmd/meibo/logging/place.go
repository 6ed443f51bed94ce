package logging

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
)

// waiting is how many lines may wait for a place.
const waiting = 1024

// line is one line with its line break.
type line struct {
	text  []byte
	level slog.Level
}

// writer writes whole lines somewhere. It is used by one goroutine, and may
// block. An error is said in the log; written says that the line is where it is
// looked for all the same.
type writer interface {
	write(line) (written bool, err error)
	io.Closer
}

// place is somewhere that lines go to, with those that wait for it.
type place struct {
	name string
	w    writer
	lost atomic.Uint64
	done chan struct{} // closed once everything is written

	mu     sync.RWMutex // guards closed: nothing is sent once it is set
	closed bool
	queue  chan line
}

func newPlace(name string, w writer) *place {
	return &place{name: name, w: w, done: make(chan struct{}), queue: make(chan line, waiting)}
}

// put hands a line over, or loses it. It never blocks.
func (p *place) put(l line) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.closed {
		select {
		case p.queue <- l:
			return
		default:
		}
	}
	p.lost.Add(1)
}

func (p *place) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.queue)
	}
}

// start writes lines until close.
func (p *place) start(log *slog.Logger) {
	go func() {
		defer close(p.done)
		said, told := "", uint64(0)
		for l := range p.queue {
			written, err := p.w.write(l)
			if !written {
				p.lost.Add(1)
			}
			switch lost := p.lost.Load(); {
			case err != nil && err.Error() != said:
				said = err.Error()
				log.Error("the log is not written as it should be; will go on trying", "to", p.name, "err", err)
			case err != nil || len(p.queue) > 0:
			case said != "" || lost > told:
				log.Warn("the log is written again", "to", p.name, "lost_lines", lost-told)
				said, told = "", lost
			}
		}
		_ = p.w.Close()
	}()
}

// stream is stderr, or what stands for it.
type stream struct{ io.Writer }

func (s *stream) write(l line) (bool, error) {
	_, err := s.Write(l.text)
	return err == nil, err
}

// Close leaves the stream open: it is not ours.
func (s *stream) Close() error { return nil }
