package httpapi

import (
	"context"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"
)

// waits admits blocking queries: how many at once, and for how long.
type waits struct {
	standard, longest time.Duration
	limit             int64
	now               atomic.Int64
	metrics           *metrics
}

func newWaits(standard, longest time.Duration, limit int, m *metrics) *waits {
	return &waits{standard: standard, longest: longest, limit: int64(limit), metrics: m}
}

// begin counts one blocking query in; done counts it out.
func (w *waits) begin() (done func(), err error) {
	if n := w.now.Add(1); n > w.limit {
		w.now.Add(-1)
		w.metrics.tooMany.Inc()
		return nil, errorf(http.StatusTooManyRequests,
			"too many blocking queries: %d are waiting on this host, its limit; ask again without index, or share one query between watchers", w.limit)
	}
	w.metrics.blocking.Inc()
	return func() { w.now.Add(-1); w.metrics.blocking.Dec() }, nil
}

// span is how long a query waits that asked for d: Consul's bounds, and up to a sixteenth
// more, so that queries that began together do not all come back together.
func (w *waits) span(d time.Duration) time.Duration {
	if d <= 0 {
		d = w.standard
	}
	d = min(d, w.longest)
	if jitter := d / 16; jitter > 0 {
		d += rand.N(jitter)
	}
	return d
}

// watchSet collects the channels of one read. It implements catalog.Watch.
type watchSet struct {
	cases []reflect.SelectCase
	seen  map[<-chan struct{}]struct{}
}

// maxWatched is below the 65,536 cases that one select can hold. A read with more
// channels than this is looked at again every second besides.
const maxWatched = 60000

// Add implements catalog.Watch.
func (s *watchSet) Add(ch <-chan struct{}) {
	if _, ok := s.seen[ch]; ok || ch == nil {
		return
	}
	if s.seen == nil {
		s.seen = make(map[<-chan struct{}]struct{})
	}
	s.seen[ch] = struct{}{}
	if len(s.cases) < maxWatched {
		s.cases = append(s.cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)})
	}
}

// wait returns true when a channel closed, and false when the deadline came or ctx ended.
func (s *watchSet) wait(ctx context.Context, deadline <-chan time.Time) bool {
	cases := append(s.cases,
		reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())},
		reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(deadline)})
	if len(s.seen) > maxWatched {
		again := time.NewTimer(time.Second)
		defer again.Stop()
		// In front, so that its index counts as a change.
		cases = append([]reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(again.C)}}, cases...)
	}
	chosen, _, _ := reflect.Select(cases)
	return chosen < len(cases)-2
}

// blockOptions are what a request says of waiting.
type blockOptions struct {
	index uint64 // answer when the result's index differs; 0: at once
	wait  time.Duration
}

func parseBlock(r *request) (o blockOptions, err error) {
	if v := r.query.Get("wait"); v != "" {
		if o.wait, err = time.ParseDuration(v); err != nil {
			return o, badRequest("Invalid wait time")
		}
	}
	if v := r.query.Get("index"); v != "" {
		if o.index, err = strconv.ParseUint(v, 10, 64); err != nil {
			return o, badRequest("Invalid index")
		}
	}
	return o, nil
}
