package gossip

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Consul gossips by memberlist too, with Serf on top, whose delegate has a
// protocol version of 2 to 5; that of meibo's is 0. So memberlist itself keeps
// the two apart, in either direction and before anything is merged, even with
// one key: that is as it should be, for each would take the other's tags for
// noise. It says so at each attempt, and in words that name no Consul.

// serfMinimum is the lowest version of Serf's delegate that Consul ever spoke.
const serfMinimum = 2

var lineIncompatible = regexp.MustCompile(`Node '(.*)' delegate protocol version \(([0-9]+)\) is incompatible`)

// serfNode is the name of the host that speaks Serf, by what memberlist says of
// a merge that it refused.
func serfNode(text string) (name string, ok bool) {
	m := lineIncompatible.FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	if version, err := strconv.Atoi(m[2]); err != nil || version < serfMinimum {
		return "", false
	}
	return m[1], true
}

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

// consul warns of a host that speaks Serf once, as far as that can be
// remembered.
func (l *lines) consul(name, text string) {
	l.mu.Lock()
	again := l.consuls[name] || len(l.consuls) >= maxTold
	if !again {
		l.consuls[strings.Clone(name)] = true
	}
	l.mu.Unlock()
	if !again {
		l.to.Warn("gossip: "+isConsul(name), "memberlist", text)
	}
}
