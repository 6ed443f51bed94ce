package state

import (
	"meibo/cluster/catalog"
)

// expireRequests forgets replies older than [catalog.RepliesKept] by the
// time in the log.
func (w *writer) expireRequests() {
	horizon := w.meta.Clock - int64(catalog.RepliesKept)
	for {
		row := first(w.tx, tableRequests, byTime+"_prefix", []byte{})
		if row == nil || row.(*requestRow).Time >= horizon {
			return
		}
		w.dropRequest(row.(*requestRow))
	}
}

func (w *writer) findRequest(id catalog.RequestID) *requestRow {
	if id.Client == "" {
		return nil
	}
	row := first(w.tx, tableRequests, byID, requestKey(id.Client, id.Counter))
	if row == nil {
		return nil
	}
	return row.(*requestRow)
}

// rememberRequest keeps the reply. The time kept is the log's, which doesn't
// go back, so that the oldest is always found first.
func (w *writer) rememberRequest(id catalog.RequestID, reply *catalog.Error) {
	if id.Client == "" {
		return
	}
	w.insert(tableRequests, &requestRow{Client: id.Client, Counter: id.Counter, Time: w.meta.Clock, Err: reply})
	w.meta.Requests++
	for w.meta.Requests > maxRequests {
		w.dropRequest(first(w.tx, tableRequests, byTime+"_prefix", []byte{}).(*requestRow))
	}
}

func (w *writer) dropRequest(row *requestRow) {
	w.remove(tableRequests, row)
	w.meta.Requests--
}
