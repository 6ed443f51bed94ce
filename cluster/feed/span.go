package feed

import "slices"

// maxSpans is how many spans are remembered.
const maxSpans = 1024

// span is a run of transactions that this server saw as one change, with all
// that they touched. Another server may have told a host of the state between
// two of them, which this one never saw: something could have gone and come back.
// Such a host is told all of what the span touched, changed or not.
type span struct {
	start, end uint64 // the states before and after
	all        bool   // it may have touched anything
	nodes      map[string]bool
	services   map[string]bool
}

func (t *things) addSpan(s span) {
	t.spans = append(t.spans, s)
	if len(t.spans) > maxSpans {
		t.floor = max(t.floor, t.spans[0].end)
		t.spans[0] = span{}
		t.spans = t.spans[1:]
	}
}

// spanAround returns the span that the index is strictly inside of, nil if this
// server has seen the state with that index.
func (t *things) spanAround(index uint64) *span {
	i, _ := slices.BinarySearchFunc(t.spans, index, func(s span, index uint64) int {
		if s.end <= index {
			return -1
		}
		return 1
	})
	if i < len(t.spans) && t.spans[i].start < index {
		return &t.spans[i]
	}
	return nil
}

// tellInside tells what the span touched and the journal doesn't hold after the
// place, and has the services told in full.
func (t *things) tellInside(at *place, in *span, tell func(*entry)) {
	for key := range in.nodes {
		var e *entry
		if n := t.nodes[key]; n != nil {
			e = n.node
		}
		t.tellAgain(at, e, entry{kind: ofNode, gone: true, node: key, label: key}, tell)
	}
	for name := range in.services {
		var e *entry
		if s := t.services[name]; s != nil {
			e = s.name
		}
		t.tellAgain(at, e, entry{kind: ofName, gone: true, name: name}, tell)
		if _, wanted := at.names[name]; wanted || at.whole {
			if at.asked == nil {
				at.asked = make(map[string]struct{})
			}
			at.asked[name] = struct{}{}
		}
	}
}

// tellAgain tells e, or that it is gone if nothing is known of it.
func (t *things) tellAgain(at *place, e *entry, gone entry, tell func(*entry)) {
	switch {
	case e == nil:
		gone.encode()
		tell(&gone)
	case e.index <= at.index:
		tell(e)
	}
}
