package agent

import (
	"reflect"
	"slices"

	"meibo/cluster/catalog"
	"meibo/cluster/definition"
)

// AddService adds a service with its checks, or replaces one of the same ID.
// Checks of a former registration that def does not name stay, unless
// replaceChecks. A check that was there before keeps its status. What the API
// registers is on the disk when AddService returns, or the error says why not
// and nothing has changed.
func (a *Agent) AddService(def definition.Service, source Source, replaceChecks bool) error {
	given := def
	def, err := a.normalizeService(def)
	if err != nil {
		return err
	}
	for i := range def.Checks {
		if err := a.permit(&def.Checks[i], source); err != nil {
			return err
		}
	}
	a.warnService(given, source)
	var t touched
	a.define.Lock()
	err = a.addService(def, source, replaceChecks, &t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// addService takes in a definition that was checked. It needs a.define.
func (a *Agent) addService(def definition.Service, source Source, replaceChecks bool, t *touched) error {
	s := &service{def: def, source: source, record: def.Record(a.cfg.Node.Node)}
	gone := a.checksToDrop(def, replaceChecks)
	if err := a.room(def, len(gone)); err != nil {
		return err
	}
	added := make([]*checkState, 0, len(def.Checks))
	for _, c := range def.Checks {
		next, err := a.prepareCheck(c, source, s.record)
		if err != nil {
			return err
		}
		added = append(added, next)
	}
	if err := a.saveService(s, added, gone); err != nil {
		return err
	}
	a.applyService(s, added, gone, t)
	return nil
}

// checksToDrop are the IDs of the service's checks that replacing takes away.
func (a *Agent) checksToDrop(def definition.Service, replace bool) []string {
	if !replace {
		return nil
	}
	named := map[string]bool{catalog.ServiceMaintPrefix + def.ID: true}
	for _, c := range def.Checks {
		named[c.ID] = true
	}
	var gone []string
	for _, c := range a.Own().Checks {
		if c.ServiceID == def.ID && !named[c.CheckID] {
			gone = append(gone, c.CheckID)
		}
	}
	return gone
}

// room refuses what would be more than this host may register.
func (a *Agent) room(def definition.Service, leaving int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.services[def.ID]; !ok && len(a.services) >= a.cfg.MaxServices {
		return invalid("service %q is refused: this host has %d services, the most it may have", def.ID, len(a.services))
	}
	more := 0
	for _, c := range def.Checks {
		if _, ok := a.checks[c.ID]; !ok {
			more++
		}
	}
	if more > 0 && len(a.checks)+more-leaving > a.cfg.MaxChecks {
		return invalid("service %q is refused: with its checks this host would have more than %d, the most it may have", def.ID, a.cfg.MaxChecks)
	}
	return nil
}

// saveService writes what the API registered; what a file defines is in that
// file, and what was kept under its ID is put away.
//
// The service goes last: a crash in between leaves checks of a service that does
// not exist, which restore drops, and never a service without its checks.
func (a *Agent) saveService(s *service, checks []*checkState, gone []string) error {
	if s.source == SourceFile {
		a.forget(name(servicesDir, s.def.ID))
		for _, c := range checks {
			a.forget(name(checksDir, c.def.ID))
		}
		return nil
	}
	var files []file
	for _, c := range checks {
		f, err := encodeCheck(c)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	f, err := encodeService(s)
	if err != nil {
		return err
	}
	if err := a.files.put(append(files, f)...); err != nil {
		return kept("service", s.def.ID, a.cfg.DataDir, err)
	}
	for _, id := range gone {
		a.forget(name(checksDir, id))
	}
	return nil
}

// forget removes a file that has no meaning any more. If it cannot be removed
// that is said: it would come back at the next start.
func (a *Agent) forget(paths ...string) {
	if err := a.files.remove(paths...); err != nil {
		a.logger.Error("cannot remove a file of a former registration; it may come back at the next start", "err", err)
	}
}

// applyService makes the change show.
func (a *Agent) applyService(s *service, added []*checkState, gone []string, t *touched) {
	var dropped []*checkState
	a.mu.Lock()
	former := a.services[s.def.ID]
	a.services[s.def.ID] = s
	t.add(s.def.Name)
	if former != nil {
		t.add(former.def.Name)
		s.dirty = former.dirty
	}
	if former == nil || !reflect.DeepEqual(former.record, s.record) {
		a.markLocked(&s.dirty)
	}
	delete(a.goneServices, s.def.ID)
	a.publishLocked(func(r *Record) {
		r.setService(s.record)
		for _, id := range gone {
			dropped = append(dropped, a.dropCheckLocked(r, id, t)...)
		}
		for _, c := range added {
			a.setCheckLocked(r, c, t)
		}
		if former != nil && (former.record.Service != s.record.Service || !slices.Equal(former.record.Tags, s.record.Tags)) {
			a.relabelLocked(r, s)
		}
	})
	a.pokeAliasesLocked()
	a.mu.Unlock()
	a.retire(dropped)
}

// relabelLocked gives the service's checks its new name and tags.
func (a *Agent) relabelLocked(r *Record, s *service) {
	for _, c := range a.checks {
		if c.def.ServiceID != s.def.ID || c.record.ServiceName == s.record.Service && reflect.DeepEqual(c.record.ServiceTags, s.record.Tags) {
			continue
		}
		record := *c.record
		record.ServiceName, record.ServiceTags = s.record.Service, s.record.Tags
		c.record = &record
		a.markLocked(&c.dirty)
		r.setCheck(c.record)
	}
}

// RemoveService removes a service with its checks.
func (a *Agent) RemoveService(id string) error {
	var t touched
	a.define.Lock()
	err := a.removeService(id, &t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// removeService needs a.define. The service's file goes first: see saveService.
func (a *Agent) removeService(id string, t *touched) error {
	a.mu.Lock()
	s := a.services[id]
	a.mu.Unlock()
	if s == nil {
		return unknownService(id)
	}
	var gone []string
	paths := []string{name(servicesDir, id)}
	for _, c := range a.Own().Checks {
		if c.ServiceID == id {
			gone = append(gone, c.CheckID)
			paths = append(paths, name(checksDir, c.CheckID))
		}
	}
	if err := a.files.remove(paths...); err != nil {
		return kept("removal of service", id, a.cfg.DataDir, err)
	}
	var dropped []*checkState
	a.mu.Lock()
	delete(a.services, id)
	a.goneLocked(a.goneServices, id)
	t.add(s.def.Name)
	a.publishLocked(func(r *Record) {
		r.dropService(id)
		for _, check := range gone {
			dropped = append(dropped, a.dropCheckLocked(r, check, t)...)
		}
	})
	a.pokeAliasesLocked()
	a.mu.Unlock()
	a.retire(dropped)
	return nil
}
