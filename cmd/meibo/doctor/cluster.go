package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"meibo/cluster/httpapi/client"
)

// mostMembers bounds how many members are dialled; of more, so many are picked at random.
const mostMembers = 64

// noCluster is why there is nothing to say of one.
func (e *exam) noCluster() []Finding {
	if e.standing == nil {
		return []Finding{unknown("members are not known: the daemon does not tell", "mend what is said of agent first")}
	}
	return nil
}

// cluster looks how this host stands in its cluster.
func cluster(_ context.Context, e *exam) []Finding {
	if out := e.noCluster(); out != nil {
		return out
	}
	s := e.standing
	var out []Finding
	if s.Stale {
		out = append(out, critical("no server with a leader confirms what this host answers from", "`meibo members -detailed` shows which servers are gone: more than half of them must run and reach each other"))
	}
	if s.Braking {
		out = append(out, critical("more than half of the members went at once: this host suspects itself", "see whether this host's network lets it reach the others (check reachable)"))
	}
	failed, servers, silent := []string{}, 0, []string{}
	for _, m := range s.Members {
		if m.Conflict != "" {
			out = append(out, critical(fmt.Sprintf("member %s: %s", m.Name, m.Conflict), "give each host a node_name and a data_dir of its own: a copied machine keeps neither"))
		}
		isServer := m.Tags["role"] == "consul"
		if isServer && m.State != "left" {
			servers++
		}
		if m.State == "failed" || m.State == "suspect" {
			failed = append(failed, m.Name)
			if isServer {
				silent = append(silent, m.Name)
			}
		}
	}
	switch {
	case len(silent) > 0:
		out = append(out, warning("servers are gone: "+some(silent), "start them, or `meibo force-leave NODE` for those that are gone for good"))
	case len(failed) > 0:
		out = append(out, warning("members are gone: "+some(failed), "start them, or `meibo force-leave NODE` for those that are gone for good"))
	}
	if servers == 2 {
		out = append(out, warning("of two servers both must run: the loss of either stops writes", "run three"))
	}
	return orOK(out, "%d members, %d of them servers", len(s.Members), servers)
}

// reachable dials the members' ports: what gossip says and what connections say must agree.
func reachable(ctx context.Context, e *exam) []Finding {
	if out := e.noCluster(); out != nil {
		return out
	}
	var ends []end
	for _, m := range e.standing.Members {
		addr, err := netip.ParseAddr(m.Addr)
		if m.Name == e.standing.Node || err != nil || m.Port == 0 || m.State == "left" {
			continue
		}
		ends = append(ends, end{m, netip.AddrPortFrom(addr, m.Port), "gossip"})
		if p, err := strconv.ParseUint(m.Tags["port"], 10, 16); err == nil && p > 0 && m.State == "alive" {
			ends = append(ends, end{m, netip.AddrPortFrom(addr, uint16(p)), "servers"})
		}
	}
	if len(ends) == 0 {
		return []Finding{ok("there is no other member")}
	}
	rand.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	ends = ends[:min(len(ends), mostMembers)]
	slices.SortFunc(ends, func(a, b end) int { return strings.Compare(a.member.Name+a.use, b.member.Name+b.use) })
	found := make([][]Finding, len(ends))
	var all sync.WaitGroup
	for i, end := range ends {
		all.Go(func() { found[i] = end.dial(ctx) })
	}
	all.Wait()
	return orOK(slices.Concat(found...), "%d ports of other members take connections", len(ends))
}

// end is a port of a member.
type end struct {
	member client.MemberDetail
	at     netip.AddrPort
	use    string
}

func (x end) dial(ctx context.Context) []Finding {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", x.at.String())
	if err == nil {
		conn.Close()
	}
	alive, port := x.member.State == "alive", x.at.Port()
	switch {
	case err == nil && !alive:
		return []Finding{critical(fmt.Sprintf("gossip says that %s is %s, but its port takes connections (%s)", x.member.Name, x.member.State, x.at),
			fmt.Sprintf("let UDP port %d through, both ways, on either host and between them", port))}
	case err == nil || !alive:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return []Finding{critical(fmt.Sprintf("%s is alive, but refuses connections of %s at %s", x.member.Name, x.use, x.at),
			fmt.Sprintf("a firewall rejects them, or the daemon there could not have the port (its log says so): let TCP port %d through", port))}
	}
	return []Finding{critical(fmt.Sprintf("%s is alive, but TCP to its port of %s, %s, does not get through: %s", x.member.Name, x.use, x.at, lastOf(err)),
		fmt.Sprintf("let TCP port %d through, both ways, on either host and between them", port))}
}

// versions looks whether all members run the same.
func versions(_ context.Context, e *exam) []Finding {
	if out := e.noCluster(); out != nil {
		return out
	}
	hosts := map[string][]string{}
	for _, m := range e.standing.Members {
		if v := m.Tags["meibo"]; m.State == "alive" && v != "" {
			hosts[v] = append(hosts[v], m.Name)
		}
	}
	if len(hosts) <= 1 {
		for v := range hosts {
			return []Finding{ok("all members run %s", v)}
		}
		return []Finding{ok("no member tells its version")}
	}
	var said []string
	for v, names := range hosts {
		slices.Sort(names)
		said = append(said, fmt.Sprintf("%s on %d (%s)", v, len(names), some(names)))
	}
	slices.Sort(said)
	return []Finding{warning("members run different versions: "+strings.Join(said, "; "), "upgrade those that are behind, one server at a time, then the others")}
}

// some are the first few of a list.
func some(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
