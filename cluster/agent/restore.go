package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"meibo/cluster/catalog"
)

// restore brings back what DataDir holds, once. A file that makes no sense is
// set aside; an error means that nothing was read and it can be tried again.
func (a *Agent) restore() error {
	var t touched
	a.define.Lock()
	err := a.restoreAll(&t)
	a.define.Unlock()
	a.tell(t)
	return err
}

func (a *Agent) restoreAll(t *touched) error {
	if a.restored {
		return nil
	}
	if err := a.files.open(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err // a read-only folder can still be read
	}
	services, err := a.files.list(servicesDir)
	if err != nil {
		return err
	}
	checks, err := a.files.list(checksDir)
	if err != nil {
		return err
	}
	a.restored = true
	for _, path := range services {
		if err := a.restoreService(path, t); err != nil {
			a.files.setAside(path, err)
		}
	}
	for _, path := range checks {
		if err := a.restoreCheck(path, t); err != nil {
			a.files.setAside(path, err)
		}
	}
	a.forgetStates()
	return nil
}

// forgetStates removes the states of checks that went while the agent was down.
func (a *Agent) forgetStates() {
	states, err := a.files.list(stateDir)
	if err != nil {
		return // they do no harm
	}
	held := map[string]bool{}
	for _, c := range a.Own().Checks {
		held[name(stateDir, c.CheckID)] = true
	}
	a.forget(slices.DeleteFunc(states, func(path string) bool { return held[path] })...)
}

// restoreService takes in one kept service, unless a file or a newer
// registration has its ID. An error says that the file makes no sense.
func (a *Agent) restoreService(path string, t *touched) error {
	data, err := a.files.read(path)
	if err != nil {
		return err
	}
	def, err := decodeService(data)
	if err == nil {
		err = wrongPlace(path, def.ID)
	}
	if err == nil {
		def, err = a.normalizeService(def)
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	held := a.services[def.ID]
	a.mu.Unlock()
	if held != nil {
		if held.source == SourceFile {
			a.forget(path)
		}
		return nil
	}
	if err := a.room(def, 0); err != nil {
		return err
	}
	a.applyService(&service{def: def, source: SourceAPI, record: def.record(a.cfg.Node.Node)}, nil, nil, t)
	return nil
}

// restoreCheck does the same for a check. One of a service that isn't there is
// what a crash left of a registration that nobody was told had worked.
func (a *Agent) restoreCheck(path string, t *touched) error {
	data, err := a.files.read(path)
	if err != nil {
		return err
	}
	def, err := decodeCheck(data)
	if err == nil {
		err = wrongPlace(path, def.ID)
	}
	if err != nil {
		return err
	}
	if !isMaintenance(def.ID) {
		if def, err = a.normalizeCheck(def); err != nil {
			return err
		}
	}
	a.mu.Lock()
	held, of := a.checks[def.ID], a.services[def.ServiceID]
	full := len(a.checks) >= a.cfg.MaxChecks
	a.mu.Unlock()
	switch {
	case held != nil && held.source == SourceAPI:
		return nil
	case held != nil, def.ServiceID != "" && of == nil:
		a.forget(path)
		return nil
	case full:
		return fmt.Errorf("this host may have %d checks, and has them", a.cfg.MaxChecks)
	}
	return a.applyCheck(def, of, t)
}

func (a *Agent) applyCheck(def CheckDefinition, of *service, t *touched) error {
	var record *catalog.Service
	if of != nil {
		record = of.record
	}
	c, err := a.prepareCheck(def, SourceAPI, record)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.publishLocked(func(r *Record) { a.setCheckLocked(r, c, t) })
	a.pokeAliasesLocked()
	a.mu.Unlock()
	return nil
}

func isMaintenance(id string) bool { return (&catalog.Check{CheckID: id}).IsMaintenance() }
