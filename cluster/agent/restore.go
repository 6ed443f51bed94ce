package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"meibo/cluster/catalog"
	"meibo/cluster/definition"
)

// begin takes in what files define and what DataDir holds, in Consul's order: services,
// kept ones too, before the checks of files, which may be of either. Where both have an
// ID the file counts.
func (a *Agent) begin() error {
	var t touched
	a.define.Lock()
	kept, unread := Kept(a.cfg.DataDir)
	services, checks, unfit := a.checkFiles(a.cfg.Services, a.cfg.Checks, func(id string) bool { return kept[id] || unread != nil })
	for _, def := range services {
		if err := a.addService(def, SourceFile, false, &t); err != nil {
			unfit = append(unfit, unfitService(def, err))
		}
	}
	a.leftOut, a.pending = unfit, checks
	err := a.restoreAll(&t)
	if err != nil {
		a.place(&t)
	}
	a.define.Unlock()
	a.notify(t)
	return err
}

// place takes in the checks of files. One whose service isn't there is left out, or
// waits while nobody knows what DataDir holds. It needs a.define.
func (a *Agent) place(t *touched) {
	checks := a.pending
	a.pending = nil
	for _, def := range checks {
		err := a.addCheck(def, SourceFile, t)
		switch {
		case err == nil:
		case errors.Is(err, ErrUnknownService) && !a.restored:
			a.pending = append(a.pending, def)
		default:
			a.leftOut = append(a.leftOut, unfitCheck(def, err))
		}
	}
}

// restore brings back what DataDir holds, once. A file that makes no sense is
// set aside; an error means that nothing was read and it can be tried again.
func (a *Agent) restore() error {
	var t touched
	a.define.Lock()
	err := a.restoreAll(&t)
	a.define.Unlock()
	a.notify(t)
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
	a.place(t)
	for _, path := range checks {
		if err := a.restoreCheck(path, t); err != nil {
			a.files.setAside(path, err)
		}
	}
	a.forgetStates()
	return nil
}

// isAbsent reports whether a file defines the service, but with a fault.
func (a *Agent) isAbsent(id string) bool {
	return id != "" && (slices.Contains(a.cfg.Absent, id) || slices.ContainsFunc(a.leftOut, func(u Unfit) bool { return !u.Check && u.ID == id }))
}

// restoreWaiting brings back the kept checks of services whose definitions were mended.
// It needs a.define.
func (a *Agent) restoreWaiting(t *touched) {
	paths := a.waiting
	a.waiting, a.cfg.Absent = nil, nil
	for _, path := range paths {
		if err := a.restoreCheck(path, t); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.files.setAside(path, err)
		}
	}
}

// forgetStates removes the states of checks that went while the agent was down.
func (a *Agent) forgetStates() {
	if len(a.leftOut)+len(a.cfg.Absent) > 0 {
		return // theirs may yet be wanted
	}
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
	def, err := a.readService(path)
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
	a.applyService(&service{def: def, source: SourceAPI, record: def.Record(a.cfg.Node.Node)}, nil, nil, t)
	return nil
}

func (a *Agent) readService(path string) (definition.Service, error) {
	data, err := a.files.read(path)
	if err != nil {
		return definition.Service{}, err
	}
	def, err := decodeService(data)
	if err == nil {
		err = wrongPlace(path, def.ID)
	}
	if err == nil {
		def, err = a.normalizeService(def)
	}
	return def, err
}

// Kept returns the IDs of the services that an agent started on dataDir would bring
// back. It only reads; a folder that isn't there holds none.
func Kept(dataDir string) (map[string]bool, error) {
	a, err := newAgent(Config{DataDir: dataDir, Node: catalog.Node{Node: "reader"}})
	if err != nil {
		return nil, err
	}
	paths, err := a.files.list(servicesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	ids := map[string]bool{}
	for _, path := range paths {
		def, readErr := a.readService(path)
		switch {
		case readErr == nil:
			ids[def.ID] = true
		case errors.Is(readErr, fs.ErrPermission):
			err = readErr
		}
	}
	return ids, err
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
	case held == nil && of == nil && a.isAbsent(def.ServiceID):
		a.waiting = append(a.waiting, path)
		return nil
	case held != nil, def.ServiceID != "" && of == nil:
		a.forget(path)
		return nil
	case full:
		return fmt.Errorf("this host may have %d checks, and has them", a.cfg.MaxChecks)
	}
	return a.applyCheck(def, of, t)
}

func (a *Agent) applyCheck(def definition.Check, of *service, t *touched) error {
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
