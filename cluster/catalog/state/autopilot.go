package state

import (
	"fmt"

	"meibo/cluster/catalog"
)

// setAutopilot replaces the one record that says what autopilot does with the servers.
func (w *writer) setAutopilot(s *catalog.SetAutopilot) error {
	var old catalog.Autopilot
	if row := first(w.tx, tableAutopilot, byID, key("autopilot")); row != nil {
		old = *row.(*catalog.Autopilot)
	}
	if s.CAS && s.ModifyIndex != old.ModifyIndex {
		return catalog.ErrChanged
	}
	c := s.Config
	c.CreateIndex, c.ModifyIndex = old.CreateIndex, old.ModifyIndex
	if c == old && old.CreateIndex != 0 {
		return nil
	}
	if c.ModifyIndex = w.index; c.CreateIndex == 0 {
		c.CreateIndex = w.index
	}
	w.insert(tableAutopilot, &c)
	return nil
}

// Autopilot is what autopilot does with the servers, nil where nobody has said it yet.
func (r *Read) Autopilot(ws catalog.Watch) (uint64, *catalog.Autopilot) {
	r.watch(ws)
	ch, row, err := r.tx.FirstWatch(tableAutopilot, byID, key("autopilot"))
	if err != nil {
		panic(fmt.Errorf("read autopilot: %w", err))
	}
	if ws != nil {
		ws.Add(ch)
	}
	if row == nil {
		return max(r.meta.Floor, 1), nil
	}
	c := row.(*catalog.Autopilot)
	return max(c.ModifyIndex, r.meta.Floor, 1), c
}
