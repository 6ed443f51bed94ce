package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"meibo/cluster/acl"
)

// The endpoints whose answers end when the client goes, and what they are about.

// metricsEvery is how often metrics are streamed, as in Consul.
const metricsEvery = 10 * time.Second

// levels are the names that Consul's clients ask for a log by.
var levels = map[string]slog.Level{
	"": slog.LevelInfo, "trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "err": slog.LevelError, "error": slog.LevelError,
}

func (a *agentSet) monitor(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Read); err != nil {
		return nil, err
	}
	level, ok := levels[strings.ToLower(r.query.Get("loglevel"))]
	if !ok {
		return nil, badRequest("Unknown log level: %s", clip(r.query.Get("loglevel")))
	}
	asJSON, err := r.flag("logjson")
	if err != nil {
		return nil, err
	}
	contentType := "text/plain; charset=utf-8"
	if asJSON {
		contentType = "application/json"
	}
	return a.stream(r, contentType, a.cfg.Agent.Monitor(r.Context(), level, asJSON))
}

func (a *agentSet) metricsStream(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Read); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	readings := make(chan []byte)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(readings)
		ticker := time.NewTicker(metricsEvery)
		defer ticker.Stop()
		for {
			reading, err := a.gather()
			data, _ := json.Marshal(reading) // holds only what JSON can say
			if err != nil {
				return
			}
			select {
			case readings <- append(data, '\n'):
			case <-ctx.Done():
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return a.stream(r, "application/json", readings)
}

// stream sends what comes, until nothing more does or the client goes. Each counts as one
// that waits.
func (a *agentSet) stream(r *request, contentType string, chunks <-chan []byte) (any, error) {
	done, err := a.waits.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	r.w.Header().Set("Content-Type", contentType)
	r.w.WriteHeader(http.StatusOK)
	// Not every writer has deadlines, or can flush (those of tests); then there is none.
	rc := http.NewResponseController(r.w)
	_ = rc.Flush()
	for {
		select {
		case <-r.Context().Done():
			return written, nil
		case chunk, more := <-chunks:
			if !more {
				return written, nil
			}
			_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := r.w.Write(chunk); err != nil || bytes.HasSuffix(chunk, []byte("\n")) && rc.Flush() != nil {
				return written, nil
			}
		}
	}
}

func (a *agentSet) host(r *request) (any, error) {
	if err := r.authorize(acl.Operator, "", acl.Read); err != nil {
		return nil, err
	}
	return a.cfg.Agent.Host(), nil
}

// token sets one of an agent's tokens, of which there is no use until there are ACLs.
func (a *agentSet) token(*request) (any, error) {
	return nil, errorf(http.StatusUnauthorized, "ACL support disabled")
}
