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

func (t *entries) addSpan(s span) {
	t.spans = append(t.spans, s)
	if len(t.spans) > maxSpans {
		t.floor = max(t.floor, t.spans[0].end)
		t.spans[0] = span{}
		t.spans = t.spans[1:]
	}
}

// spanAround returns the span that the index is strictly inside of, nil if this
// server has seen the state with that index.
func (t *entries) spanAround(index uint64) *span {
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

// maxPairs is how many parts are told one by one before whole services are.
const maxPairs = 1024

// tellInside tells what the span touched and the journal doesn't hold after the
// cursor.
func (t *entries) tellInside(at *cursor, in *span, tell func(*entry)) {
	for key := range in.nodes {
		var e *entry
		if n := t.nodes[key]; n != nil {
			e = n.node
		}
		tellAgain(at, e, entry{kind: ofNode, gone: true, node: key, label: key}, tell)
	}
	for name := range in.services {
		var e *entry
		s := t.services[name]
		if s != nil {
			e = s.name
		}
		tellAgain(at, e, entry{kind: ofName, gone: true, name: name}, tell)
		if _, wanted := at.names[name]; wanted || at.whole {
			in.tellService(at, name, s, tell)
		}
	}
}

// tellService tells the parts of the service that the span may have touched, or
// has it told in full.
func (in *span) tellService(at *cursor, name string, s *serviceEntries, tell func(*entry)) {
	if len(in.nodes)*len(in.services) > maxPairs {
		if at.asked == nil {
			at.asked = make(map[string]struct{})
		}
		at.asked[name] = struct{}{}
		return
	}
	for key := range in.nodes {
		var e *entry
		if s != nil {
			e = s.parts[key]
		}
		tellAgain(at, e, entry{kind: ofPart, gone: true, name: name, node: key, label: key}, tell)
	}
}

// tellAgain tells e, or that it is gone if nothing is known of it.
func tellAgain(at *cursor, e *entry, gone entry, tell func(*entry)) {
	switch {
	case e == nil:
		gone.encode()
		tell(&gone)
	case e.index <= at.index:
		tell(e)
	}
}
