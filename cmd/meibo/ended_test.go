package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"meibo/cluster/httpapi/client"
)

// A daemon on another host has ended when nobody answers there any more; one whose API is only slow or unwilling has not.
func TestWatchEnd_OverTheNetwork(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}))
	c, err := client.New(client.Config{Address: server.URL})
	must(t, err)
	defer c.Close()
	wait := watchEnd(c)
	ctx, cancel := context.WithTimeout(t.Context(), 3*endAgain)
	defer cancel()
	if err := wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it answers: %v", err)
	}
	server.Close()
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	must(t, wait(ctx))
	t.Logf("seen after %v", time.Since(began))
}
