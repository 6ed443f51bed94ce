package leader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

const (
	// absentSettle is for how long a node must have been no member, all of that
	// time under this leader, before it counts as failed: members that were
	// merely not heard of yet have called by then.
	absentSettle = 10 * time.Minute
	// absentLeast is how many absent nodes it takes at least for more than half
	// to be too many to believe.
	absentLeast = 3
	// absentNotes begins the notes of an absent node's serfHealth. The time that
	// follows is read by later leaders.
	absentNotes = "No member of the cluster's gossip since "
)

// absentee is a node that was a member and is none.
type absentee struct {
	node  *catalog.Node
	check *catalog.Check // its serfHealth
}

// absentees deals with the nodes that were members and are none: who says that
// they left may have been gone when they did.
func (r *reconciler) absentees(ctx context.Context, members []*Member) error {
	gone, total := r.findAbsent(members)
	r.recordAbsent(gone)
	tooMany := len(gone) >= absentLeast && 2*len(gone) > total
	if tooMany && !r.halfOff {
		r.logger.Warn("most nodes of the catalog are no members: none of them is judged by that", "absent", len(gone), "nodes", total)
	}
	r.halfOff = tooMany
	if tooMany {
		return nil
	}
	var errs []error
	for _, a := range gone {
		if time.Since(r.absent[fold(a.node.Node)]) < absentSettle {
			continue
		}
		if err := r.judgeAbsent(ctx, a); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", a.node.Node, err))
			var refusal *catalog.Error
			if !errors.As(err, &refusal) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// findAbsent returns the nodes that were members and are none, and how many
// were or are.
func (r *reconciler) findAbsent(members []*Member) (gone []absentee, total int) {
	known := make(map[string]struct{}, 2*len(members))
	for _, m := range members {
		known["name "+fold(m.Node.Node)] = struct{}{}
		known["id "+fold(m.Node.ID)] = struct{}{}
	}
	read := r.cfg.Catalog.Read()
	_, nodes := read.Nodes(nil)
	for _, n := range nodes {
		serf := serfHealthOf(read, n.Node)
		if serf == nil || n.Agentless {
			continue
		}
		total++
		_, byName := known["name "+fold(n.Node)]
		_, byID := known["id "+fold(n.ID)]
		if !byName && (!byID || n.ID == "") {
			gone = append(gone, absentee{n, serf})
		}
	}
	return gone, total
}

func serfHealthOf(read Reader, node string) *catalog.Check {
	_, checks := read.NodeChecks(nil, node)
	i := slices.IndexFunc(checks, func(c *catalog.Check) bool { return c.CheckID == catalog.SerfHealth })
	if i < 0 {
		return nil
	}
	return checks[i]
}

// recordAbsent keeps since when each is absent.
func (r *reconciler) recordAbsent(gone []absentee) {
	now := make(map[string]struct{}, len(gone))
	for _, a := range gone {
		name := fold(a.node.Node)
		now[name] = struct{}{}
		if _, ok := r.absent[name]; !ok {
			r.absent[name] = time.Now()
		}
	}
	maps.DeleteFunc(r.absent, func(name string, _ time.Time) bool { _, still := now[name]; return !still })
}

// judgeAbsent has an absent node fail, or go once it has been absent for long.
func (r *reconciler) judgeAbsent(ctx context.Context, a absentee) error {
	text, noted := strings.CutPrefix(a.check.Notes, absentNotes)
	since, err := time.Parse(time.RFC3339, text)
	if !noted || err != nil {
		serf := serfCheck(a.node.Node, catalog.Critical, serfFailed)
		serf.Notes = absentNotes + r.absent[fold(a.node.Node)].UTC().Format(time.RFC3339)
		r.logger.Warn("node is no member any more: counts as failed", "node", a.node.Node, "id", a.node.ID)
		return r.cfg.Catalog.Apply(ctx, &catalog.Register{Node: *a.node, SkipNodeUpdate: true, Checks: []*catalog.Check{serf}})
	}
	if time.Since(since) < r.cfg.ReconnectTimeout {
		return nil
	}
	r.logger.Warn("node is deregistered: it was no member for too long", "node", a.node.Node, "id", a.node.ID, "since", since)
	return r.cfg.Catalog.Apply(ctx, &catalog.Deregister{Node: a.node.Node, NodeID: a.node.ID})
}
