// Package httpserve runs an http.Server for as long as a context lives.
package httpserve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Run serves on the listeners until ctx ends or one of them fails. The contexts of
// requests under way, which are of ctx, end then; requests have for drain to answer, and
// what takes longer is cut. It returns when the listeners are closed and no connection is
// served any more, though handlers that were cut may still be at it: nil, or why a
// listener failed.
func Run(ctx context.Context, srv *http.Server, drain time.Duration, listeners ...net.Listener) error {
	base, stop := context.WithCancel(ctx)
	defer stop()
	srv.BaseContext = func(net.Listener) context.Context { return base }
	failed := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { failed <- srv.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if srv.Shutdown(late) != nil {
		_ = srv.Close() // what would not end in time is cut
	}
	serving.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
