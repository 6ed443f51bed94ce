package agent

import (
	"errors"
	"maps"
	"reflect"
	"slices"

	"meibo/cluster/definition"
)

// Unfit is a definition of a file that is not used, and why.
type Unfit struct {
	Check     bool   // it is a check by itself, not a service
	Index     int    // its place among the services, or the checks, that were looked at
	ID        string // "" where it has none
	Name      string
	ServiceID string // of a check: what it is a check of, if anything
	Err       error
}

func unfitService(def definition.Service, err error) Unfit {
	return Unfit{ID: def.ID, Name: def.Name, Err: err}
}

func unfitCheck(def definition.Check, err error) Unfit {
	return Unfit{Check: true, ID: def.ID, Name: def.Name, ServiceID: def.ServiceID, Err: err}
}

// FindUnfit returns those of cfg's Services and Checks that New would leave out and
// Reload would refuse; registered tells which services the API registered. It reads
// and changes nothing.
func FindUnfit(cfg Config, registered func(id string) bool) ([]Unfit, error) {
	cfg.DataDir, cfg.Logger = "", nil
	a, err := newAgent(cfg)
	if err != nil {
		return nil, err
	}
	_, _, unfit := a.checkFiles(cfg.Services, cfg.Checks, registered)
	return unfit, nil
}

// LeftOut returns the definitions of files that New was given and that are not used.
// A Reload ends that: it takes all it is given, or nothing.
func (a *Agent) LeftOut() []Unfit {
	a.define.Lock()
	defer a.define.Unlock()
	all := slices.Clone(a.leftOut)
	for _, def := range a.pending {
		all = append(all, unfitCheck(def, invalid("waits until it is known whether ServiceID %q exists: the data directory can't be read", def.ServiceID)))
	}
	return all
}

// Reload makes what files define equal to these definitions. What the API
// registered stays, but for what now has an ID of a file's: there the file
// counts. Checks that stay keep their state, and their runs. If anything is
// wrong the errors name all of it, and nothing has changed.
func (a *Agent) Reload(services []definition.Service, checks []definition.Check) error {
	services, checks, unfit := a.checkFiles(services, checks, a.Registered)
	if len(unfit) > 0 {
		return joined(unfit)
	}
	var t touched
	a.define.Lock()
	a.leftOut, a.pending = nil, nil
	err := a.reload(services, checks, &t)
	a.restoreWaiting(&t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// CheckReload returns the errors of definitions that Reload would refuse, and
// changes nothing.
func (a *Agent) CheckReload(services []definition.Service, checks []definition.Check) error {
	_, _, unfit := a.checkFiles(services, checks, a.Registered)
	return joined(unfit)
}

func joined(unfit []Unfit) error {
	errs := make([]error, len(unfit))
	for i, u := range unfit {
		errs[i] = u.Err
	}
	return errors.Join(errs...)
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
	a.notify(touched{node: true})
}

// SetDiscardCheckOutput says whether later results of checks lose their output.
func (a *Agent) SetDiscardCheckOutput(discard bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discard = discard
}

// checkFiles looks at all definitions before any is used, and parts those that can't
// be from those that can. registered tells which services the API registered.
func (a *Agent) checkFiles(services []definition.Service, checks []definition.Check, registered func(id string) bool) (_ []definition.Service, _ []definition.Check, unfit []Unfit) {
	fit := make([]definition.Service, 0, len(services))
	known, count := map[string]bool{}, 0
	for i, def := range services {
		def, err := a.normalizeService(def)
		for j := range def.Checks {
			err = errors.Join(err, a.permit(&def.Checks[j], SourceFile))
		}
		switch {
		case err != nil:
		case len(fit) >= a.cfg.MaxServices:
			err = invalid("service %q is refused: files define %d services before it, the most that a host may have", def.ID, len(fit))
		case count+len(def.Checks) > a.cfg.MaxChecks:
			err = invalid("service %q is refused: with its checks files would define more than %d, the most that a host may have", def.ID, a.cfg.MaxChecks)
		}
		if known[def.ID] = known[def.ID] || err == nil; err != nil {
			u := unfitService(def, err)
			u.Index = i
			unfit = append(unfit, u)
			continue
		}
		fit, count = append(fit, def), count+len(def.Checks)
	}
	alone := make([]definition.Check, 0, len(checks))
	for i, def := range checks {
		def, err := a.normalizeCheck(def)
		err = errors.Join(err, a.permit(&def, SourceFile))
		fits, named := known[def.ServiceID]
		switch {
		case def.ServiceID == "" || fits:
		case registered(def.ServiceID):
		case named:
			err = errors.Join(err, invalid("check %q: service %q, which it is a check of, is left out", def.ID, def.ServiceID))
		default:
			err = errors.Join(err, invalid("check %q: ServiceID %q does not exist: no file defines it, and it is not registered", def.ID, def.ServiceID))
		}
		if err == nil && count >= a.cfg.MaxChecks {
			err = invalid("check %q is refused: files define %d checks before it, the most that a host may have", def.ID, count)
		}
		if err != nil {
			u := unfitCheck(def, err)
			u.Index = i
			unfit = append(unfit, u)
			continue
		}
		alone, count = append(alone, def), count+1
	}
	return fit, alone, unfit
}

// Registered reports whether the API registered a service of this ID.
func (a *Agent) Registered(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	return s != nil && s.source == SourceAPI
}

// reload needs a.define, and definitions that were checked.
func (a *Agent) reload(services []definition.Service, checks []definition.Check, t *touched) error {
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
func (a *Agent) hasFromFile(def definition.Service) bool {
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
func (a *Agent) leftServices(services []definition.Service) []string {
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
func (a *Agent) leftChecks(services []definition.Service, checks []definition.Check) []string {
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
