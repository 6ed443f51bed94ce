package httpapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"meibo/cluster/acl"
)

// The endpoints of this host's membership: whom it sees, joining, leaving.

func (a *agentSet) members(r *request) (any, error) {
	if err := refuseSegment(r); err != nil {
		return nil, err
	}
	f, err := parseFilter(r)
	if err != nil {
		return nil, err
	}
	wan, err := r.flag("wan")
	if err != nil {
		return nil, err
	}
	list := make([]Member, 0)
	for _, m := range a.cfg.Agent.Members() {
		if wan {
			// The WAN pool is the servers alone, each with its datacenter in its name.
			if m.Tags["role"] != "consul" {
				continue
			}
			m.Name += "." + m.Tags["dc"]
		}
		if r.may(acl.Node, m.Name) {
			list = append(list, m)
		}
	}
	return apply(f, list)
}

// refuseSegment: the one segment there is has no name; "_all" means it too.
func refuseSegment(r *request) error {
	if s := r.query.Get("segment"); s != "" && s != "_all" {
		return badRequest("Provided segment %q is not one of this agent: network segments are a Consul Enterprise feature", clip(s))
	}
	return nil
}

// standingShape is the answer of /v1/meibo/members.
type standingShape struct {
	Node        string
	Braking     bool
	Merging     bool
	Stale       bool
	History     string
	Index       uint64
	Confirmed   *time.Time
	Server      string
	ServerSince *time.Time
	Members     []detailShape
}

type detailShape struct {
	Name      string
	ID        string
	Addr      string
	Port      uint16
	Tags      map[string]string
	State     string
	Since     *time.Time
	Told      string
	ToldBy    string
	ToldAt    *time.Time
	HeldUntil *time.Time
	Flaps     int
	RTT       string // in Go's notation; empty: unknown
	Conflict  string
	History   string
}

// detailedMembers tells what Consul's form has no room for: what this host makes of each
// member and why, and how it stands in its cluster itself.
func (a *agentSet) detailedMembers(r *request) (any, error) {
	f, err := parseFilter(r)
	if err != nil {
		return nil, err
	}
	s := a.cfg.Agent.Standing()
	list := []detailShape{}
	for _, m := range a.cfg.Agent.Members() {
		if r.may(acl.Node, m.Name) {
			list = append(list, shapeDetail(m))
		}
	}
	if list, err = apply(f, list); err != nil {
		return nil, err
	}
	return standingShape{
		Node: a.cfg.Node, Braking: s.Braking, Merging: s.Merging, Stale: s.Stale, History: s.History, Index: s.Index,
		Confirmed: known(s.Confirmed), Server: s.Server, ServerSince: known(s.ServerSince), Members: list,
	}, nil
}

// unconfirmedShape is an entry of /v1/meibo/unconfirmed.
type unconfirmedShape struct {
	Node, ID, Address string
	All               bool
	Services          []string
	Confirmed         *time.Time
}

// unconfirmed lists what is answered here though no server knows of it: for people to
// register again, or to forget.
func (a *agentSet) unconfirmed(r *request) (any, error) {
	list := []unconfirmedShape{}
	for _, u := range a.cfg.Agent.Unconfirmed() {
		if r.may(acl.Node, u.Node) {
			list = append(list, unconfirmedShape{u.Node, u.ID, u.Address, u.All, notNil(u.Services), known(u.Confirmed)})
		}
	}
	return list, nil
}

func shapeDetail(m Member) detailShape {
	d := m.Detail
	if d.State == "" {
		d.State = m.Status.String()
	}
	s := detailShape{
		Name: m.Name, ID: d.ID, Addr: m.Addr, Port: m.Port, Tags: m.Tags, State: d.State, Since: known(d.Since),
		Told: d.Told, ToldBy: d.ToldBy, ToldAt: known(d.ToldAt), HeldUntil: known(d.HeldUntil), Flaps: d.Flaps, Conflict: d.Conflict, History: d.History,
	}
	if d.RTT > 0 {
		s.RTT = d.RTT.String()
	}
	return s
}

// known is nil for a time that isn't.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (a *agentSet) join(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Write); err != nil {
		return nil, err
	}
	if err := refuseWAN(r); err != nil {
		return nil, err
	}
	if strings.TrimSpace(r.arg) == "" {
		return nil, badRequest("Missing address to join")
	}
	return nil, a.cfg.Agent.Join(r.Context(), r.arg)
}

// refuseWAN: a change of the pool of other datacenters must not be made in the local one.
func refuseWAN(r *request) error {
	wan, err := r.flag("wan")
	if wan {
		err = errorf(http.StatusNotImplemented, "not there yet: this version of meibo knows one datacenter only, there is no WAN pool")
	}
	return err
}

func (a *agentSet) leave(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Write); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.Leave(r.Context())
}

func (a *agentSet) forceLeave(r *request) (any, error) {
	if err := r.authorize(acl.Operator, "", acl.Write); err != nil {
		return nil, err
	}
	if err := refuseWAN(r); err != nil {
		return nil, err
	}
	if r.arg == "" {
		return nil, badRequest("Missing node name")
	}
	prune, err := r.flag("prune")
	if err != nil {
		return nil, err
	}
	remark, err := a.cfg.Agent.ForceLeave(r.Context(), r.arg, prune)
	r.remark(remark)
	if errors.Is(err, ErrUnknownMember) { // in Consul's words
		err = errorf(http.StatusInternalServerError, "agent: No node found with name '%s'", clip(r.arg))
	}
	return nil, err
}
