package httpapi

import (
	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

func (c *catalogSet) healthService(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service name")
	}
	f, meta, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	passing, err := r.flag("passing")
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, instances := rd.ServiceInstances(ws, r.arg)
		r.missing = len(instances) == 0
		list := make([]instanceShape, 0, len(instances))
		for _, i := range instances {
			if (passing && i.Status() != catalog.Passing) || !asked(r, i, meta) {
				continue
			}
			list = append(list, instanceShape{
				Node: shapeNode(i.Node, c.datacenter), Service: shapeService(i.Service), Checks: shapeChecks(i.Checks),
			})
		}
		list, err := apply(f, list)
		return index, list, err
	})
}

func (c *catalogSet) healthNode(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing node name")
	}
	return c.checks(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, []*catalog.Check) { return rd.NodeChecks(ws, r.arg) })
}

func (c *catalogSet) healthChecks(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service name")
	}
	return c.checks(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, []*catalog.Check) {
		return rd.ServiceChecks(ws, r.arg)
	})
}

func (c *catalogSet) healthState(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing check state")
	}
	return c.checks(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, []*catalog.Check) {
		return rd.ChecksInState(ws, r.arg)
	})
}

// checks answers with a list of checks, narrowed by what lists take.
func (c *catalogSet) checks(r *request, get func(catalog.Reader, catalog.Watch) (uint64, []*catalog.Check)) (any, error) {
	f, meta, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, checks := get(rd, ws)
		list := make([]checkShape, 0, len(checks))
		for _, check := range checks {
			if len(meta) > 0 {
				_, n := rd.Node(ws, check.Node)
				if n == nil || !meta.match(n.Meta) {
					continue
				}
			}
			if r.may(acl.Node, check.Node) && (check.ServiceName == "" || r.may(acl.Service, check.ServiceName)) {
				list = append(list, checkShape(*check))
			}
		}
		list, err := apply(f, list)
		return index, list, err
	})
}
