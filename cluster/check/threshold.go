package check

// counter turns single results into the status that shows.
//
// A warning counts as a success, as in Consul: it ends a row of failures.
type counter struct {
	toPassing, toWarning, toCritical int
	successes, failures              int
}

func newCounter(d *Definition) counter {
	c := counter{
		toPassing:  max(d.SuccessBeforePassing, 1),
		toCritical: max(d.FailuresBeforeCritical, 1),
		toWarning:  d.FailuresBeforeWarning,
	}
	if c.toWarning <= 0 {
		c.toWarning = c.toCritical
	}
	return c
}

// count takes one result in; it returns the status to show now, or false when
// the former one stands.
func (c *counter) count(status string) (string, bool) {
	if status == Passing || status == Warning {
		c.failures = 0
		c.successes = min(c.successes+1, c.toPassing)
		return status, c.successes >= c.toPassing
	}
	c.successes = 0
	c.failures = min(c.failures+1, max(c.toCritical, c.toWarning))
	switch {
	case c.failures >= c.toCritical:
		return Critical, true
	case c.failures >= c.toWarning:
		return Warning, true
	}
	return "", false
}
