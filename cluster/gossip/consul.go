package gossip

import (
	"errors"
	"fmt"
)

// Consul gossips by memberlist too, with Serf on top, whose delegate has a
// protocol version of 2 to 5; that of meibo's is 0. So memberlist itself keeps
// the two apart, in either direction and before anything is merged, even with
// one key: that is as it should be, for each would take the other's tags for
// noise. It says so at each attempt, and in words that name no Consul.

// isConsul is what a host that speaks Serf is, and what can be done about it.
func isConsul(name string) string {
	return fmt.Sprintf("%q is a Consul server or agent, by the protocol that it gossips in: meibo does not join Consul's cluster, nor Consul meibo's, whatever the key; "+
		"name servers of meibo to join, on ports or hosts of their own, and ask Consul for its names by a forward block for its domain (servers = [\"ITS-ADDRESS:8600\"])", name)
}

// consulError is why a Consul server or agent wasn't joined. The log has said it.
type consulError struct{ name string }

func (e consulError) Error() string { return isConsul(e.name) }

// withoutConsul leaves out of the errors of Join those that the log has once and
// for all.
func withoutConsul(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if errors.As(err, new(consulError)) {
			return nil
		}
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if e = withoutConsul(e); e != nil {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}
