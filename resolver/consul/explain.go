package consul

import "meibo/resolver/wire"

// Owns reports whether a name is in the catalog's domain.
func (z *Zone) Owns(name string) bool {
	n, err := wire.ParseName(name)
	if err != nil {
		return false
	}
	domain, _ := z.settings.Load().domainOf(n.Lower())
	return domain != nil
}

// ServiceOf says which service a name is about and which tag narrows it ("" for
// none), both in lower case; ok is false for a name that is not a service's.
// It is for people who want to see what was left out of an answer.
func (z *Zone) ServiceOf(name string) (service, tag string, ok bool) {
	n, err := wire.ParseName(name)
	if err != nil {
		return "", "", false
	}
	s := z.settings.Load()
	domain, rest := s.domainOf(n.Lower())
	if domain == nil {
		return "", "", false
	}
	q := s.parse(rest.Labels())
	return q.name, q.tag, q.kind == services
}
