package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// checkState is one registered check.
type checkState struct {
	runner  *check.Runner // nil for maintenance and what must not run
	changed chan struct{} // wakes an alias; nil for all others

	// Guarded by Agent.mu:
	def      definition.Check
	source   Source
	record   *catalog.Check // replaced, never modified
	dirty    dirtyFlag
	deferred *time.Timer        // an output on its way to the catalog, later
	critical time.Time          // when it last became so
	reported bool               // a result has been taken in
	stop     context.CancelFunc // of its runner, nil when that isn't running

	keeping sync.Mutex // guards following, and orders writes of the state file
	gone    bool
}

// AddCheck adds a check of the node or of a service that exists, or replaces
// one of the same ID, which keeps its status. Errors as for AddService.
func (a *Agent) AddCheck(def definition.Check, source Source) error {
	given := def
	def, err := a.normalizeCheck(def)
	if err == nil {
		err = a.permit(&def, source)
	}
	if err != nil {
		return err
	}
	a.warnCheck(given, source)
	var t touched
	a.define.Lock()
	err = a.addCheck(def, source, &t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// addCheck takes in a definition that was checked. It needs a.define.
func (a *Agent) addCheck(def definition.Check, source Source, t *touched) error {
	var of *catalog.Service
	a.mu.Lock()
	if s := a.services[def.ServiceID]; s != nil {
		of = s.record
	}
	_, known := a.checks[def.ID]
	full := !known && len(a.checks) >= a.cfg.MaxChecks
	a.mu.Unlock()
	switch {
	case def.ServiceID != "" && of == nil:
		return &refusal{fmt.Sprintf("ServiceID %q does not exist", def.ServiceID), ErrUnknownService}
	case full:
		return invalid("check %q is refused: this host has %d checks, the most it may have", def.ID, a.cfg.MaxChecks)
	}
	c, err := a.prepareCheck(def, source, of)
	if err != nil {
		return err
	}
	if source == SourceFile {
		a.forget(name(checksDir, def.ID))
	} else {
		f, err := encodeCheck(c)
		if err != nil {
			return err
		}
		if err := a.files.put(f); err != nil {
			return kept("check", def.ID, a.cfg.DataDir, err)
		}
	}
	a.mu.Lock()
	a.publishLocked(func(r *Record) { a.setCheckLocked(r, c, t) })
	a.pokeAliasesLocked()
	a.mu.Unlock()
	return nil
}

// RemoveCheck removes a check.
func (a *Agent) RemoveCheck(id string) error {
	var t touched
	a.define.Lock()
	err := a.removeCheck(id, &t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// removeCheck needs a.define.
func (a *Agent) removeCheck(id string, t *touched) error {
	a.mu.Lock()
	_, known := a.checks[id]
	a.mu.Unlock()
	if !known {
		return unknownCheck(id)
	}
	if err := a.files.remove(name(checksDir, id)); err != nil {
		return kept("removal of check", id, a.cfg.DataDir, err)
	}
	var dropped []*checkState
	a.mu.Lock()
	a.publishLocked(func(r *Record) { dropped = a.dropCheckLocked(r, id, t) })
	a.pokeAliasesLocked()
	a.mu.Unlock()
	a.retire(dropped)
	return nil
}

// prepareCheck makes what a check needs, its former status included, without
// showing it. A check whose run is not changed keeps its runner: its next run
// comes when it would have come.
func (a *Agent) prepareCheck(def definition.Check, source Source, of *catalog.Service) (*checkState, error) {
	c := &checkState{def: def, source: source, record: newRecord(a.cfg.Node.Node, def, of)}
	if c.record.IsMaintenance() {
		return c, nil
	}
	a.mu.Lock()
	former := a.checks[def.ID]
	same := former != nil && former.runner != nil && reflect.DeepEqual(former.def.Definition, def.Definition)
	a.mu.Unlock()
	if same {
		c.runner, c.changed = former.runner, former.changed
		return c, nil
	}
	var left time.Duration
	if former == nil {
		left = a.recall(c)
	}
	return c, a.makeRunner(c, left)
}

// newRecord is the check as the catalog shows it, before its first result.
func newRecord(node string, def definition.Check, of *catalog.Service) *catalog.Check {
	r := &catalog.Check{
		Node: node, CheckID: def.ID, Name: def.Name, Notes: def.Notes, Status: def.Status,
		Type: string(def.Kind()), Interval: text(def.Interval), Timeout: text(def.Timeout),
	}
	if of != nil {
		r.ServiceID, r.ServiceName, r.ServiceTags = of.ID, of.Service, of.Tags
	}
	if r.IsMaintenance() {
		r.Type, r.Interval, r.Timeout = "maintenance", "", ""
	}
	return r
}

// text is a duration that is set.
func text(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// makeRunner gives the check its runner. What can't run here (a kind that this
// daemon lacks, a script kept from a time when it was allowed) stands as critical
// and says why: a service must not look healthy because nobody looks.
func (a *Agent) makeRunner(c *checkState, left time.Duration) error {
	def := c.def.Definition
	def.OutputMaxSize = a.cfg.CheckOutputMaxSize
	if c.def.OutputMaxSize > 0 {
		def.OutputMaxSize = min(def.OutputMaxSize, c.def.OutputMaxSize)
	}
	cfg := check.Config{
		Definition: def, Label: c.def.ID, ScriptsAllowed: a.scriptsAllowed(c.source),
		Expires: left, TLS: a.cfg.CheckTLS, Slots: a.slots, Now: a.cfg.Now, Logger: a.logger,
	}
	id := c.def.ID
	runner := new(*check.Runner)
	cfg.Report = func(status, output string) { a.report(id, *runner, status, output) }
	if def.Kind() == check.KindAlias {
		c.changed = make(chan struct{}, 1)
		cfg.Changed = c.changed
		node, service := def.AliasNode, def.AliasService
		cfg.Alias = func(ctx context.Context) (string, string) { return a.aliased(ctx, id, node, service) }
	}
	r, err := check.New(cfg)
	if errors.Is(err, check.ErrScriptsDisabled) || errors.Is(err, check.ErrUnrunnable) {
		a.logger.Error("a check can't run here and stands as critical", "check", id, "service", c.record.ServiceID, "err", err)
		c.record.Status, c.record.Output = catalog.Critical, err.Error()
		return nil
	}
	if err != nil {
		return invalid("Invalid check %q: %v", id, err)
	}
	*runner, c.runner = r, r
	return nil
}

// setCheckLocked shows the check in the place of a former one of its ID.
func (a *Agent) setCheckLocked(r *Record, c *checkState, t *touched) {
	former := a.checks[c.def.ID]
	changed := true
	if former != nil {
		t.add(former.record.ServiceName)
		a.inherit(c, former)
		changed = former.undeferLocked() || !reflect.DeepEqual(former.record, c.record)
	}
	if c.record.Status == catalog.Critical && c.critical.IsZero() {
		c.critical = time.Now()
	}
	a.checks[c.def.ID] = c
	if c.changed != nil {
		a.aliases[c.def.ID] = c.changed
	} else {
		delete(a.aliases, c.def.ID)
	}
	if changed {
		a.markLocked(&c.dirty)
	}
	delete(a.goneChecks, c.def.ID)
	t.add(c.record.ServiceName)
	r.setCheck(c.record)
	a.startLocked(c)
}

// inherit has a check go on where a former one of its ID is: what it shows,
// since when, and its runner where that is the same.
func (a *Agent) inherit(c, former *checkState) {
	c.dirty = former.dirty
	switch {
	case former.runner == c.runner && c.runner != nil:
		c.stop = former.stop
	case former.stop != nil:
		former.stop()
	}
	if c.runner == nil {
		return // maintenance, or a check that must not run: it shows that
	}
	c.record.Status, c.record.Output = former.record.Status, former.record.Output
	c.critical, c.reported = former.critical, former.reported
}

// dropCheckLocked takes a check away and returns it for retire.
func (a *Agent) dropCheckLocked(r *Record, id string, t *touched) []*checkState {
	c := a.checks[id]
	if c == nil {
		return nil
	}
	delete(a.checks, id)
	delete(a.aliases, id)
	c.undeferLocked()
	if c.stop != nil {
		c.stop()
	}
	t.add(c.record.ServiceName)
	r.dropCheck(id)
	a.goneLocked(a.goneChecks, id)
	return []*checkState{c}
}

// retire removes the state files of checks that were dropped.
func (a *Agent) retire(checks []*checkState) {
	for _, c := range checks {
		c.keeping.Lock()
		c.gone = true
		a.forget(name(stateDir, c.def.ID))
		c.keeping.Unlock()
	}
}

// startLocked starts the check's runner if Run is running and it isn't.
func (a *Agent) startLocked(c *checkState) {
	if a.running == nil || c.runner == nil || c.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(a.running)
	c.stop = stop
	runner := c.runner
	a.started.Go(func() {
		defer a.stopped(c.def.ID, runner)
		defer stop()
		runner.Run(ctx)
	})
}

// stopped lets another Run start the runner again.
func (a *Agent) stopped(id string, r *check.Runner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.checks[id]; c != nil && c.runner == r {
		c.stop = nil
	}
}

// report takes in a result. One of a runner that was replaced is dropped.
func (a *Agent) report(id string, r *check.Runner, status, output string) {
	var t touched
	a.mu.Lock()
	if a.discard {
		output = ""
	}
	c := a.checks[id]
	if c == nil || c.runner != r {
		a.mu.Unlock()
		return
	}
	before := c.record.Status
	turned, first := before != status, !c.reported
	c.reported = true
	news := turned || c.record.Output != output
	if news {
		a.setResultLocked(c, status, output, &t)
	}
	ttl := c.def.TTL
	a.mu.Unlock()
	if turned || ttl > 0 {
		a.saveState(c, status, output, ttl)
	}
	if turned {
		a.counts.turned.Add(1)
		a.logResult("check changed", c, status, output, "before", before)
	} else if first && status != catalog.Passing { // nothing changes, as a check begins as critical: the log has it all the same
		a.logResult("check does not pass from the start", c, status, output)
	}
	if news {
		a.notify(t)
	}
}

// maxLoggedOutput is how much of a check's output a line of the log has, in bytes.
const maxLoggedOutput = 200

// logResult tells of a check, with the first line of what it printed.
func (a *Agent) logResult(text string, c *checkState, status, output string, more ...any) {
	level := slog.LevelInfo
	if status == catalog.Critical {
		level = slog.LevelWarn
	}
	args := append([]any{"check", c.def.ID}, more...)
	if c.def.ServiceID != "" {
		args = append(args, "service", c.def.ServiceID)
	}
	args = append(args, "status", status)
	line, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	if line = strings.TrimSpace(line); line != "" {
		args = append(args, "output", strings.ToValidUTF8(line[:min(len(line), maxLoggedOutput)], ""))
	}
	a.logger.Log(context.Background(), level, text, args...)
}

func (a *Agent) setResultLocked(c *checkState, status, output string, t *touched) {
	record := *c.record
	turned := record.Status != status
	record.Status, record.Output = status, output
	c.record = &record
	if turned {
		c.critical = time.Now()
		c.undeferLocked()
		a.markLocked(&c.dirty)
		defer a.pokeAliasesLocked()
	} else {
		a.deferLocked(c)
	}
	t.add(record.ServiceName)
	a.publishLocked(func(r *Record) { r.setCheck(c.record) })
}

// UpdateTTL gives a TTL check its status and output, and its time anew.
func (a *Agent) UpdateTTL(id, status, output string) error {
	a.mu.Lock()
	c := a.checks[id]
	a.mu.Unlock()
	if c == nil {
		return unknownCheck(id)
	}
	if !validStatus(status) {
		return invalid("Invalid check status: '%s'", status)
	}
	if c.runner == nil || c.runner.Update(status, output) != nil {
		return &refusal{fmt.Sprintf("CheckID %q does not have associated TTL", id), ErrNotTTL}
	}
	return nil
}

// saveState writes what the check shows, for the next start. A disk that takes
// nothing is said and otherwise borne: refusing a heartbeat would take a healthy
// service out.
func (a *Agent) saveState(c *checkState, status, output string, ttl time.Duration) {
	state := keptState{CheckID: c.def.ID, Status: status, Output: output}
	if ttl > 0 && status != catalog.Critical {
		state.Expires = time.Now().Add(ttl).Unix()
	}
	data, err := json.Marshal(state)
	if err != nil {
		return
	}
	c.keeping.Lock()
	defer c.keeping.Unlock()
	if c.gone {
		return
	}
	if err := a.files.putState(file{name(stateDir, c.def.ID), data}); err != nil {
		a.counts.unkept.Add(1)
		a.logger.Warn("cannot keep the state of a check for the next start", "check", c.def.ID, "err", err)
	}
}

// recall gives a check the status it had before the last stop, and returns what
// is left of its TTL.
func (a *Agent) recall(c *checkState) (left time.Duration) {
	path := name(stateDir, c.def.ID)
	data, err := a.files.read(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.logger.Warn("cannot read the former state of a check", "check", c.def.ID, "err", err)
		}
		return 0
	}
	state, err := decodeState(data)
	if err == nil {
		err = wrongPlace(path, state.CheckID)
	}
	if err != nil {
		a.files.setAside(path, err)
		return 0
	}
	if state.Expires > 0 {
		if left = time.Until(time.Unix(state.Expires, 0)); left <= 0 {
			return 0
		}
	}
	c.record.Status, c.record.Output = state.Status, state.Output
	return left
}

// aliased says what an alias check shows: the worst of what it follows.
func (a *Agent) aliased(ctx context.Context, self, node, service string) (status, output string) {
	if node != "" && !strings.EqualFold(node, a.cfg.Node.Node) {
		return a.aliasedElsewhere(ctx, node, service)
	}
	own := a.Own()
	return aliasStatus(own.Services, own.Checks, self, a.cfg.Node.Node, service)
}

// aliasedElsewhere follows a check of another node through the catalog.
func (a *Agent) aliasedElsewhere(ctx context.Context, node, service string) (status, output string) {
	if a.cfg.Catalog == nil {
		return catalog.Critical, fmt.Sprintf("Node %s cannot be followed: this host has no catalog", node)
	}
	ctx, cancel := context.WithTimeout(ctx, check.DefaultTimeout)
	defer cancel()
	remote, err := a.cfg.Catalog.Load(ctx, node)
	switch {
	case err != nil:
		return catalog.Critical, fmt.Sprintf("Failure checking aliased node or service: %v", err)
	case remote.Node == nil:
		return catalog.Critical, fmt.Sprintf("Node %s could not be found", node)
	}
	return aliasStatus(remote.Services, remote.Checks, "", node, service)
}

func aliasStatus(services []*catalog.Service, checks []*catalog.Check, self, node, service string) (status, output string) {
	found := service == ""
	for _, s := range services {
		found = found || s.ID == service
	}
	if !found {
		return catalog.Critical, fmt.Sprintf("Service %s could not be found on node %s", service, node)
	}
	status, output = catalog.Passing, "All checks passing."
	for _, c := range checks {
		if c.CheckID == self || c.ServiceID != "" && c.ServiceID != service {
			continue
		}
		if c.Status == catalog.Critical || c.Status == catalog.Warning && status == catalog.Passing {
			status = c.Status
			output = fmt.Sprintf("Aliased check %q failing: %s", c.Name, c.Output)
		}
		if status == catalog.Critical {
			break
		}
	}
	return status, output
}

// pokeAliasesLocked has alias checks look again.
func (a *Agent) pokeAliasesLocked() {
	for _, changed := range a.aliases {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
