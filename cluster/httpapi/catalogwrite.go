package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

// register carries out a catalog registration. The node is marked agentless: whoever
// registers here is not the node's agent. Where an agent does answer for the node, Consul
// lets its anti-entropy silently undo the write within a minute; so do we, but we say so.
func (c *catalogSet) register(r *request) (any, error) {
	var b catalogRegisterBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	if err := c.here(r, b.Datacenter); err != nil {
		return nil, err
	}
	if err := b.refuseTenancy(); err != nil {
		return nil, err
	}
	cmd := b.command(c.datacenter)
	cmd.Normalize()
	if err := cmp.Or(cmd.Validate(), b.validateUser(cmd)); err != nil {
		return nil, badRequest("%v", err)
	}
	if err := c.mayRegister(r, cmd); err != nil {
		return nil, err
	}
	if c.agentAnswersFor(r.Context(), b.Node) && (cmd.Service != nil || len(cmd.Checks) > 0) {
		c.warn(r, "an agent answers for this node and will undo what it does not hold itself; register there, with /v1/agent/service/register",
			"node", b.Node)
	}
	if err := c.apply(r.Context(), cmd); err != nil {
		return nil, err
	}
	return true, nil
}

// apply carries out a command and returns once lookups on this host show it.
func (c *catalogSet) apply(ctx context.Context, body catalog.Body) error {
	index, err := c.backend.Apply(ctx, body)
	if err == nil {
		c.backend.AwaitView(ctx, index)
	}
	return err
}

// here refuses a datacenter other than this one, named by the body or the parameters.
func (c *catalogSet) here(r *request, datacenter string) error {
	if datacenter == "" {
		datacenter = r.scope.Datacenter
	}
	if !strings.EqualFold(datacenter, c.datacenter) {
		return errNoPath
	}
	return nil
}

func (b *catalogRegisterBody) refuseTenancy() error {
	if err := refuseTenancy(b.Namespace, b.Partition); err != nil {
		return err
	}
	if b.Service != nil {
		if err := refuseTenancy(b.Service.Namespace, b.Service.Partition); err != nil {
			return err
		}
	}
	for _, check := range b.allChecks() {
		if err := refuseTenancy(check.Namespace, check.Partition); err != nil {
			return err
		}
	}
	return nil
}

// validateUser holds the command to the rules of what an agent registers.
func (b *catalogRegisterBody) validateUser(cmd *catalog.Register) error {
	if s := cmd.Service; s != nil {
		if err := cmp.Or(catalog.RefuseConnect(s.ID, b.Service.Proxy, b.Service.Connect), s.ValidateUser()); err != nil {
			return err
		}
	}
	for _, check := range cmd.Checks {
		if err := check.ValidateUser(); err != nil {
			return err
		}
	}
	return nil
}

func (b *catalogRegisterBody) allChecks() []*catalogCheckBody {
	var all []*catalogCheckBody
	for _, check := range append([]*catalogCheckBody{b.Check}, b.Checks...) {
		if check != nil {
			all = append(all, check)
		}
	}
	return all
}

func (b *catalogRegisterBody) command(datacenter string) *catalog.Register {
	cmd := &catalog.Register{
		Node: catalog.Node{
			ID: b.ID, Node: b.Node, Address: b.Address, Datacenter: datacenter,
			TaggedAddresses: b.TaggedAddresses, Meta: b.NodeMeta, Locality: b.Locality, Agentless: true,
		},
		SkipNodeUpdate: b.SkipNodeUpdate,
	}
	if b.Service != nil {
		cmd.Service = b.Service.service()
	}
	for _, check := range b.allChecks() {
		cmd.Checks = append(cmd.Checks, check.check())
	}
	return cmd
}

// mayRegister asks for each thing that the command writes.
func (c *catalogSet) mayRegister(r *request, cmd *catalog.Register) error {
	if !cmd.SkipNodeUpdate {
		if err := r.authorize(acl.Node, cmd.Node.Node, acl.Write); err != nil {
			return err
		}
	}
	if cmd.Service != nil {
		if err := r.authorize(acl.Service, cmd.Service.Service, acl.Write); err != nil {
			return err
		}
	}
	for _, check := range cmd.Checks {
		if check.ServiceID == "" {
			if err := r.authorize(acl.Node, cmd.Node.Node, acl.Write); err != nil {
				return err
			}
			continue
		}
		name, err := c.serviceName(r.Context(), cmd, check.ServiceID)
		if err != nil {
			return err
		}
		if err := r.authorize(acl.Service, name, acl.Write); err != nil {
			return err
		}
	}
	return nil
}

// serviceName finds what a service ID on the command's node is called: in the command, or
// in the catalog; the body's own word for it is not evidence. An unknown ID stands for itself.
func (c *catalogSet) serviceName(ctx context.Context, cmd *catalog.Register, id string) (string, error) {
	if cmd.Service != nil && cmd.Service.ID == id {
		return cmd.Service.Service, nil
	}
	rd, _, err := c.backend.Read(ctx, catalog.Stale)
	if err != nil {
		return "", err
	}
	_, services := rd.NodeServices(nil, cmd.Node.Node)
	for _, s := range services {
		if s.ID == id {
			return s.Service, nil
		}
	}
	return id, nil
}

// agentAnswersFor reports whether the catalog knows the node as one with an agent.
func (c *catalogSet) agentAnswersFor(ctx context.Context, node string) bool {
	rd, _, err := c.backend.Read(ctx, catalog.Stale)
	if err != nil {
		return false
	}
	_, n := rd.Node(nil, node)
	return n != nil && !n.Agentless
}

func (c *catalogSet) deregister(r *request) (any, error) {
	var b catalogDeregisterBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	if err := c.here(r, b.Datacenter); err != nil {
		return nil, err
	}
	if err := refuseTenancy(b.Namespace, b.Partition); err != nil {
		return nil, err
	}
	cmd := &catalog.Deregister{Node: b.Node, ServiceID: b.ServiceID, CheckID: b.CheckID}
	if err := cmd.Validate(); err != nil {
		return nil, badRequest("%v", err)
	}
	if err := c.mayDeregister(r, cmd); err != nil {
		return nil, err
	}
	if c.agentAnswersFor(r.Context(), b.Node) {
		c.warn(r, "an agent answers for this node and will register again what it holds; deregister there, with /v1/agent/service/deregister",
			"node", b.Node)
	}
	if err := c.apply(r.Context(), cmd); err != nil {
		return nil, err
	}
	return true, nil
}

// mayDeregister: a permission to write the node covers all that is on it; else the service
// that is removed, or that the check belongs to, decides.
func (c *catalogSet) mayDeregister(r *request, cmd *catalog.Deregister) error {
	denied := r.authorize(acl.Node, cmd.Node, acl.Write)
	if denied == nil || (cmd.ServiceID == "" && cmd.CheckID == "") {
		return denied
	}
	rd, _, err := c.backend.Read(r.Context(), catalog.Stale)
	if err != nil {
		return err
	}
	if cmd.ServiceID != "" {
		_, services := rd.NodeServices(nil, cmd.Node)
		for _, s := range services {
			if s.ID == cmd.ServiceID {
				return r.authorize(acl.Service, s.Service, acl.Write)
			}
		}
		return denied
	}
	_, checks := rd.NodeChecks(nil, cmd.Node)
	for _, check := range checks {
		if check.CheckID == cmd.CheckID && check.ServiceName != "" {
			return r.authorize(acl.Service, check.ServiceName, acl.Write)
		}
	}
	return denied
}

// mayBeForgotten refuses what can only be a slip: a node that nobody knows, and one whose
// host lives and would register again, after its names were gone for a while. The host
// that is asked decides, before the leader is.
func (c *catalogSet) mayBeForgotten(r *request) error {
	if r.arg == "" {
		return badRequest("Missing node name")
	}
	for _, m := range c.agent.Members() {
		if strings.EqualFold(m.Name, r.arg) && m.Detail.State == "suspect" && c.agent.Standing().Braking {
			return errorf(http.StatusConflict, "node %q does not answer, and counts as alive while this host suspects itself, as more than half of the others went at once: wait for a server with a leader, which confirms it", clip(r.arg))
		}
		if strings.EqualFold(m.Name, r.arg) && (m.Status == MemberAlive || !m.Detail.HeldUntil.IsZero()) {
			return errorf(http.StatusConflict, "node %q is alive: have it leave (meibo leave, on that host) in place of forgetting it", clip(r.arg))
		}
	}
	if !c.agent.KnowsNode(r.Context(), r.arg) {
		return errorf(http.StatusNotFound, "no node %q is known here", clip(r.arg))
	}
	return nil
}

// forget removes a node that no agent answers for any more, on every host, whether the
// catalog knows it or not: what is left over of an earlier history goes no other way.
func (c *catalogSet) forget(r *request) (any, error) {
	if err := c.here(r, ""); err != nil {
		return nil, err
	}
	if err := r.authorize(acl.Node, r.arg, acl.Write); err != nil {
		return nil, err
	}
	cmd := &catalog.Forget{Node: r.arg}
	if err := cmd.Validate(); err != nil {
		return nil, badRequest("%v", err)
	}
	if err := c.apply(r.Context(), cmd); err != nil {
		return nil, err
	}
	return true, nil
}
