package view

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// Protocol is the name under which neighbours' connections are dialled. The question
// is a frame that subscribes to one service, or to none: all there is, of
// a large catalog only what was asked for last. The answer is the frames
// of an export, with nothing in it for a neighbour that knows nothing.
const Protocol = "meibo-view/2"

const (
	// askTimeout bounds an exchange with a neighbour, whole answer included.
	askTimeout = 10 * time.Second
	// questionTimeout is how long an asker may take to say what it wants.
	questionTimeout = 2 * time.Second
	// maxAskers bounds how many are served at once: a fleet that starts all at
	// the same time has other neighbours too.
	maxAskers = 8
	// maxTold is of how many instances a neighbour tells contents that it isn't asked
	// for by name: some 1 MB, as a server does (VIEWS rule 8).
	maxTold = 8192
	// maxQuestion bounds a question, octets.
	maxQuestion = 2 * catalog.MaxNameLength
)

// ErrKnowsNothing is what AskNeighbour returns when the neighbour has nothing to
// say.
var ErrKnowsNothing = errors.New("the neighbour knows nothing of it")

// Exporter is what a neighbour is told from: a View. It is called concurrently.
type Exporter interface{ Export() *Export }

// AskNeighbour asks the host at the other end of conn for all it knows or, if
// name isn't "", for one service (VIEWS rules 11, 18 and 26). It takes at most
// 10 s and closes conn. It returns ErrKnowsNothing when the neighbour has
// nothing.
func AskNeighbour(ctx context.Context, conn net.Conn, name string) (*Export, error) {
	return askOver(ctx, conn, func() (*Export, error) {
		if len(name) > catalog.MaxNameLength {
			return nil, fmt.Errorf("%d octets are no name", len(name))
		}
		var names []string
		if name != "" {
			names = []string{name}
		}
		if _, err := conn.Write(frame.New(frame.Subscribe, func(f *frame.Encoder) { f.List(names) })); err != nil {
			return nil, err
		}
		e, err := readExport(conn)
		if err == nil && e.IsEmpty() {
			return nil, ErrKnowsNothing
		}
		return e, err
	})
}

// askOver has ask speak with a neighbour over conn, for askTimeout at most, and
// closes conn.
func askOver(ctx context.Context, conn net.Conn, ask func() (*Export, error)) (*Export, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(askTimeout))
	e, err := ask()
	switch {
	case err == nil, errors.Is(err, ErrKnowsNothing):
		return e, err
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("ask neighbour %s for what it knows: %w", conn.RemoteAddr(), err)
}

// ServeNeighbour answers the one question that comes over conn and closes it. It
// takes at most 12 s.
func ServeNeighbour(conn net.Conn, v Exporter) error {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(questionTimeout))
	name, err := readQuestion(conn)
	if err != nil {
		return fmt.Errorf("read what neighbour %s asks: %w", conn.RemoteAddr(), err)
	}
	e := v.Export()
	if name != "" {
		e = e.Only(name)
	} else {
		e.boundContents(maxTold)
	}
	if e.IsEmpty() {
		e = &Export{}
	}
	conn.SetDeadline(time.Now().Add(askTimeout))
	b := bufio.NewWriterSize(conn, frame.Full)
	if err := errors.Join(e.encode(b), b.Flush()); err != nil {
		return fmt.Errorf("tell neighbour %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

// readQuestion reads which service a neighbour asks for; "": all it can be told.
func readQuestion(r io.Reader) (name string, err error) {
	kind, payload, _, err := frame.Read(r, nil, maxQuestion)
	if err != nil {
		return "", err
	}
	f := frame.NewFields(payload)
	names := f.List()
	switch {
	case f.Err() != nil:
		return "", f.Err()
	case kind != frame.Subscribe || len(names) > 1:
		return "", fmt.Errorf("a frame of kind %d with %d names: want a subscription to one or none", kind, len(names))
	case len(names) == 0:
		return "", nil
	}
	return names[0], nil
}

// ServeNeighbours serves what l accepts, a few at a time, until l is closed or
// ctx ends, and those under way have been answered or cut off. A nil logger
// discards.
func ServeNeighbours(ctx context.Context, l net.Listener, v Exporter, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, maxAskers)
	)
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("accept neighbours: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close() // it asks another, or again
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := ServeNeighbour(conn, v); err != nil && ctx.Err() == nil {
				logger.Debug("neighbour not served", "err", err)
			}
		})
	}
}
