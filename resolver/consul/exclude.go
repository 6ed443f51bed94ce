package consul

import (
	"meibo/cluster/catalog"
)

// Excluded returns the check that keeps an instance out of answers: the first
// critical one or, with onlyPassing, the first that isn't passing. It returns
// nil for an instance that is answered. With lastResort, which is LastResort of
// all instances of the service, a host that is said to be dead keeps nothing out.
func Excluded(in catalog.Instance, onlyPassing, lastResort bool) *catalog.Check {
	for _, c := range in.Checks {
		if lastResort && c.CheckID == catalog.SerfHealth {
			continue
		}
		if c.Status == catalog.Critical || (onlyPassing && c.Status != catalog.Passing) {
			return c
		}
	}
	return nil
}

// LastResort reports whether nothing would be left of a service but for
// instances that only the death of their hosts keeps out; those are answered
// then (VIEWS rule 22). That all hosts of a service are dead is less likely than
// that whoever says so is cut off, and who asks loses nothing by trying. What an
// instance's own checks say is believed always.
func LastResort(instances []catalog.Instance, onlyPassing bool) bool {
	spared := false
	for _, in := range instances {
		if Excluded(in, onlyPassing, false) == nil {
			return false
		}
		spared = spared || Excluded(in, onlyPassing, true) == nil
	}
	return spared
}
