package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// askTimeout bounds an exchange with a neighbour, whole image included.
	askTimeout = 10 * time.Second
	// questionTimeout is how long an asker may take to say what it wants.
	questionTimeout = 2 * time.Second
	// maxAskers bounds how many are served at once: a fleet that starts all at
	// the same time has other neighbours too.
	maxAskers = 8
	// maxQuestion bounds a name, octets.
	maxQuestion = 255
)

// ErrKnowsNothing is what AskNeighbour returns when the neighbour has nothing to
// say.
var ErrKnowsNothing = errors.New("the neighbour knows nothing of it")

// Knower is what a neighbour is told from: a View. It is called concurrently.
type Knower interface{ Image() *Image }

// AskNeighbour asks the host at the other end of conn for all it knows or, if
// name isn't "", for one service (VIEWS rules 11, 18 and 26). It takes at most
// 10 s and closes conn. It returns ErrKnowsNothing when the neighbour has
// nothing.
func AskNeighbour(ctx context.Context, conn net.Conn, name string) (*Image, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	img, err := ask(conn, name)
	switch {
	case err == nil, errors.Is(err, ErrKnowsNothing):
		return img, err
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("ask neighbour %s for what it knows: %w", conn.RemoteAddr(), err)
}

func ask(conn net.Conn, name string) (*Image, error) {
	if len(name) > maxQuestion {
		return nil, fmt.Errorf("%d octets are no name", len(name))
	}
	conn.SetDeadline(time.Now().Add(askTimeout))
	if err := writeFrame(conn, []byte(name)); err != nil {
		return nil, err
	}
	b, err := readFrame(conn, MaxImage)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, ErrKnowsNothing
	}
	img := new(Image)
	if err := img.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	return img, nil
}

// ServeNeighbour answers the one question that comes over conn and closes it. It
// takes at most 12 s.
func ServeNeighbour(conn net.Conn, v Knower) error {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(questionTimeout))
	name, err := readFrame(conn, maxQuestion)
	if err != nil {
		return fmt.Errorf("read what neighbour %s asks: %w", conn.RemoteAddr(), err)
	}
	img := v.Image()
	if len(name) > 0 {
		img = img.Only(strings.ToLower(string(name)))
	}
	var b []byte
	if !img.IsEmpty() {
		if b, err = img.MarshalBinary(); err != nil {
			return err
		}
	}
	conn.SetDeadline(time.Now().Add(askTimeout))
	if err := writeFrame(conn, b); err != nil {
		return fmt.Errorf("tell neighbour %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

// ServeNeighbours serves what l accepts, a few at a time, until l is closed or
// ctx ends, and those under way have been answered or cut off. A nil logger
// discards.
func ServeNeighbours(ctx context.Context, l net.Listener, v Knower, logger *slog.Logger) error {
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

// writeFrame writes b after its length (32 bits, big endian).
func writeFrame(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil || len(b) == 0 {
		return err
	}
	_, err := w.Write(b)
	return err
}

// readFrame reads what writeFrame wrote. It takes memory as bytes come, so that
// a length alone costs nothing.
func readFrame(r io.Reader, limit int64) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > limit {
		return nil, fmt.Errorf("a frame of %d bytes, more than %d", n, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
