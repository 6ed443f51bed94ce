package agent

import (
	"errors"
	"maps"
	"reflect"
)

// Reload makes what files define equal to these definitions. What the API
// registered stays, but for what now has an ID of a file's: there the file
// counts. Checks that stay keep their state, and their runs. If anything is
// wrong the errors name all of it, and nothing has changed.
func (a *Agent) Reload(services []ServiceDefinition, checks []CheckDefinition) error {
	services, checks, err := a.checkFiles(services, checks)
	if err != nil {
		return err
	}
	var t touched
	a.define.Lock()
	err = a.reload(services, checks, &t)
	a.define.Unlock()
	a.tell(t)
	return err
}

// CheckReload returns the errors of definitions that Reload would refuse, and
// changes nothing.
func (a *Agent) CheckReload(services []ServiceDefinition, checks []CheckDefinition) error {
	_, _, err := a.checkFiles(services, checks)
	return err
}

// SetNodeMeta gives this host's node other metadata. The catalog hears of it.
func (a *Agent) SetNodeMeta(meta map[string]string) {
	a.mu.Lock()
	if maps.Equal(a.cfg.Node.Meta, meta) {
		a.mu.Unlock()
		return
	}
	a.cfg.Node.Meta = maps.Clone(meta)
	node := a.cfg.Node
	a.markLocked(&a.nodeDirty)
	a.publishLocked(func(r *Record) { r.Node = &node })
	a.mu.Unlock()
	a.tell(touched{node: true})
}

// SetDiscardCheckOutput says whether later results of checks lose their output.
func (a *Agent) SetDiscardCheckOutput(discard bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discard = discard
}

// checkFiles looks at all definitions before any is used.
func (a *Agent) checkFiles(services []ServiceDefinition, checks []CheckDefinition) (_ []ServiceDefinition, _ []CheckDefinition, err error) {
	var errs []error
	known := map[string]bool{}
	for i := range services {
		known[services[i].ID] = true
	}
	normal := make([]ServiceDefinition, 0, len(services))
	for _, def := range services {
		def, err := a.normalizeService(def)
		for i := range def.Checks {
			err = errors.Join(err, a.permit(&def.Checks[i], SourceFile))
		}
		known[def.ID] = true
		normal, errs = append(normal, def), append(errs, err)
	}
	alone := make([]CheckDefinition, 0, len(checks))
	for _, def := range checks {
		def, err := a.normalizeCheck(def)
		err = errors.Join(err, a.permit(&def, SourceFile))
		if def.ServiceID != "" && !known[def.ServiceID] && !a.hasAPIService(def.ServiceID) {
			err = errors.Join(err, invalid("check %q: ServiceID %q does not exist", def.ID, def.ServiceID))
		}
		alone, errs = append(alone, def), append(errs, err)
	}
	if len(normal) > a.cfg.MaxServices {
		errs = append(errs, invalid("files define %d services; a host may have %d", len(normal), a.cfg.MaxServices))
	}
	return normal, alone, errors.Join(errs...)
}

func (a *Agent) hasAPIService(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	return s != nil && s.source == SourceAPI
}

// reload needs a.define, and definitions that were checked.
func (a *Agent) reload(services []ServiceDefinition, checks []CheckDefinition, t *touched) error {
	var errs []error
	for _, id := range a.leftServices(services) {
		errs = append(errs, a.removeService(id, t))
	}
	for _, id := range a.leftChecks(services, checks) {
		errs = append(errs, a.removeCheck(id, t))
	}
	for _, def := range services {
		if !a.hasFromFile(def) {
			errs = append(errs, a.addService(def, SourceFile, false, t))
		}
	}
	for _, def := range checks {
		a.mu.Lock()
		c := a.checks[def.ID]
		same := c != nil && c.source == SourceFile && reflect.DeepEqual(c.def, def)
		a.mu.Unlock()
		if !same {
			errs = append(errs, a.addCheck(def, SourceFile, t))
		}
	}
	return errors.Join(errs...)
}

// hasFromFile reports whether the service is there just as def says.
func (a *Agent) hasFromFile(def ServiceDefinition) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[def.ID]
	if s == nil || s.source != SourceFile || !reflect.DeepEqual(s.def, def) {
		return false
	}
	for _, want := range def.Checks {
		if c := a.checks[want.ID]; c == nil || !reflect.DeepEqual(c.def, want) {
			return false
		}
	}
	return true
}

// leftServices are those of files that files do not name any more.
func (a *Agent) leftServices(services []ServiceDefinition) []string {
	named := map[string]bool{}
	for i := range services {
		named[services[i].ID] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var left []string
	for id, s := range a.services {
		if s.source == SourceFile && !named[id] {
			left = append(left, id)
		}
	}
	return left
}

// leftChecks are those of files that files do not name any more.
func (a *Agent) leftChecks(services []ServiceDefinition, checks []CheckDefinition) []string {
	named := map[string]bool{}
	for i := range services {
		for j := range services[i].Checks {
			named[services[i].Checks[j].ID] = true
		}
	}
	for i := range checks {
		named[checks[i].ID] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var left []string
	for id, c := range a.checks {
		if c.source == SourceFile && !named[id] {
			left = append(left, id)
		}
	}
	return left
}
