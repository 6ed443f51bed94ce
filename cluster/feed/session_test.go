package feed

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

func updateFrame(f *testing.F) []byte {
	var b bytes.Buffer
	u := &catalog.Update{Reset: true, History: catalog.History{ID: "h"}, Index: 7, Names: []string{"web"}}
	if _, _, err := frame.WriteUpdate(&b, nil, u, frame.Records(u)); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// FuzzFrames holds both ends' frames to the same.
func FuzzFrames(f *testing.F) {
	f.Add(hello{Version: 1, NodeID: "10000000-0000-4000-8000-000000000001", Datacenter: "dc1", Leader: true}.frame())
	f.Add(begin{History: catalog.History{ID: "h", Base: 7, Provisional: true}, Index: 9, Whole: true, Names: []string{"web", "db"}}.frame())
	f.Add(namesFrame(frame.Subscribe, []string{"web", ""}))
	f.Add(move{Stopping: true, Others: []string{"192.0.2.1:8300"}}.frame())
	f.Add(frame.New(frame.Refuse, func(e *frame.Encoder) { e.Strings("no") }))
	f.Add(updateFrame(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf []byte
		for {
			kind, payload, grown, err := frame.Read(r, buf, maxHostFrame)
			if err != nil {
				return
			}
			buf = grown
			again(t, kind, payload)
		}
	})
}

// again decodes a payload, and what it encodes to.
func again(t *testing.T, kind byte, payload []byte) {
	var first, second any
	var err, err2 error
	reread := func(b []byte) []byte { return b[5:] }
	switch kind {
	case frame.Hello:
		var h hello
		if h, err = decodeHello(payload); err == nil {
			first = h
			second, err2 = decodeHello(reread(h.frame()))
		}
	case frame.Begin:
		var g begin
		if g, err = decodeBegin(payload); err == nil {
			first = g
			second, err2 = decodeBegin(reread(g.frame()))
		}
	case frame.Subscribe, frame.Unsubscribe:
		var names []string
		if names, err = decodeNames(payload); err == nil {
			first = names
			second, err2 = decodeNames(reread(namesFrame(kind, names)))
			fold(names)
		}
	case frame.Move:
		var m move
		if m, err = decodeMove(payload); err == nil {
			first = m
			second, err2 = decodeMove(reread(m.frame()))
		}
	case frame.Await:
		var index uint64
		if index, err = decodeAwait(payload); err == nil {
			first = index
			second, err2 = decodeAwait(reread(awaitFrame(index)))
		}
	case frame.Refuse:
		refusal(payload)
	case frame.Update:
		s := Stream{client: NewClient(ClientConfig{Servers: func() []string { return nil }}), ctx: t.Context()}
		s.seeking = true // and don't look elsewhere
		s.update(payload)
	}
	if err2 != nil {
		t.Fatalf("frame of kind %d: what was taken is refused: %v", kind, err2)
	}
	if err == nil && kind != frame.Subscribe && kind != frame.Unsubscribe {
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("frame of kind %d changed (-first +second):\n%s", kind, diff)
		}
	}
}
