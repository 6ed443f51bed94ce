package agent

import (
	"context"
	"log/slog"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/definition"
)

// The texts are Consul's.
const (
	nodeMaintName      = "Node Maintenance Mode"
	serviceMaintName   = "Service Maintenance Mode"
	nodeMaintReason    = "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
	serviceMaintReason = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
)

// ServiceMaintenance takes a service out of answers, or back in. The reason is
// shown; an empty one is replaced. Doing it twice changes nothing. It lasts over
// a restart.
func (a *Agent) ServiceMaintenance(id string, enable bool, reason string) error {
	if len(reason) > catalog.MaxNotes {
		return invalid("reason is longer than %d bytes", catalog.MaxNotes)
	}
	if reason == "" {
		reason = serviceMaintReason
	}
	return a.maintain(definition.Check{ID: catalog.ServiceMaintPrefix + id, Name: serviceMaintName, ServiceID: id, Notes: reason}, enable)
}

// NodeMaintenance does the same for all services of this host.
func (a *Agent) NodeMaintenance(enable bool, reason string) error {
	if len(reason) > catalog.MaxNotes {
		return invalid("reason is longer than %d bytes", catalog.MaxNotes)
	}
	if reason == "" {
		reason = nodeMaintReason
	}
	return a.maintain(definition.Check{ID: catalog.NodeMaint, Name: nodeMaintName, Notes: reason}, enable)
}

func (a *Agent) maintain(def definition.Check, enable bool) error {
	def.Status = catalog.Critical
	var t touched
	a.define.Lock()
	err := a.setMaintenance(def, enable, &t)
	a.define.Unlock()
	a.notify(t)
	return err
}

// setMaintenance needs a.define.
func (a *Agent) setMaintenance(def definition.Check, enable bool, t *touched) error {
	a.mu.Lock()
	_, on := a.checks[def.ID]
	known := def.ServiceID == "" || a.services[def.ServiceID] != nil
	a.mu.Unlock()
	switch {
	case !known:
		return unknownService(def.ServiceID)
	case on == enable:
		return nil
	case !enable:
		return a.removeCheck(def.ID, t)
	}
	return a.addCheck(def, SourceAPI, t)
}

// reapInterval is how late a service that was critical for too long may go.
const reapInterval = 30 * time.Second

// reap removes services whose checks were critical for longer than they allow,
// and tries again to read a DataDir that could not be read at the start.
func (a *Agent) reap(ctx context.Context) {
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := a.restore(); err != nil {
			a.logger.Warn("still cannot read what was registered here before", "dir", a.cfg.DataDir, "err", err)
		}
		for service, check := range a.overdue() {
			a.logger.Warn("service removed: a check of it was critical for too long", "service", service, "check", check)
			if err := a.RemoveService(service); err != nil {
				a.logger.Warn("cannot remove a service that was critical for too long", "service", service, "err", err)
			}
		}
	}
}

// overdue returns the services to be removed, each with a check that is why.
func (a *Agent) overdue() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var due map[string]string
	for id, c := range a.checks {
		after := c.def.DeregisterCriticalServiceAfter
		if after <= 0 || c.def.ServiceID == "" || c.runner == nil /* nobody looked */ || c.record.Status != catalog.Critical || time.Since(c.critical) < after {
			continue
		}
		if due == nil {
			due = map[string]string{}
		}
		due[c.def.ServiceID] = id
	}
	return due
}

// failureLevel keeps the first failures of a sync, which every start has, quiet.
func failureLevel(failures int) slog.Level {
	if failures < 4 {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
