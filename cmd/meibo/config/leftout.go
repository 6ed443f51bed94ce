package config

import (
	"cmp"
	"strings"

	"meibo/cluster/agent"
)

// LeftOut is a service or check of the files that is not used, because of a fault in it.
type LeftOut struct {
	Check     bool // it is a check by itself, not a service
	ID, Name  string
	ServiceID string // of a check: the service it is a check of; "" for the node
	Faults    Faults // what is wrong with it; never empty
}

// What names the definition for people.
func (l LeftOut) What() string {
	what := "service"
	if l.Check {
		what = "check"
	}
	if l.ID != "" {
		what += " \"" + shorten(l.ID) + "\""
	}
	return what
}

// Why says on one line what is wrong with it, and where.
func (l LeftOut) Why() string {
	return strings.ReplaceAll(l.Faults.Error(), "\n", "; ")
}

// Faults are those of all definitions that are left out, in the order of the files.
func (a *Agent) Faults() Faults {
	var all Faults
	for _, l := range a.LeftOut {
		all = append(all, l.Faults...)
	}
	return all
}

// Unfit is a definition that the agent left out although Load had found nothing wrong
// with it, with the place it was written at.
func (a *Agent) Unfit(u agent.Unfit) LeftOut {
	kind := "service"
	if u.Check {
		kind = "check"
	}
	at := a.places[kind+" "+u.ID]
	return LeftOut{Check: u.Check, ID: u.ID, Name: u.Name, ServiceID: u.ServiceID,
		Faults: Faults{{File: at.file, Line: at.line, Key: kind, Text: u.Err.Error()}}}
}

// leftOut lists the definitions with faults in them.
func (b *builder) leftOut() (all []LeftOut) {
	for i, path := range []string{"services", "checks"} {
		tab := []string{"service", "check"}[i]
		for _, bl := range b.blocks(path) {
			if len(bl.faults) == 0 {
				continue
			}
			l := LeftOut{Check: i == 1, Faults: b.sorted(bl.faults)}
			l.Name = cmp.Or(at[string](bl, tab, "name"), bl.label)
			l.ID = cmp.Or(at[string](bl, tab, "id"), l.Name)
			if l.Check {
				l.ServiceID = at[string](bl, tab, "service_id")
			}
			all = append(all, l)
		}
	}
	return all
}
