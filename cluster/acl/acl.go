// Package acl decides who may do what: a token resolves to an Authorizer, and an
// Authorizer answers one question at a time ("may this token write service web?").
//
// Callers ask once per command or record they are about to show or change, never once
// per request: a batch is authorized item by item. A refusal is a *Denied that says what
// was missing, so that the error a user reads names the rule to add.
//
// Until tokens and policies exist the only resolver is AllowAll. The package knows
// nothing of HTTP, DNS or where tokens are stored.
package acl

import (
	"context"
	"errors"
	"fmt"
)

// Resource is a kind of thing that rules speak about, named as in Consul's rule language.
type Resource string

// The resources. Mesh and peering are not among them: nothing here has them.
const (
	Agent    Resource = "agent"    // what one host's agent says and does; named by node
	Node     Resource = "node"     // a node of the catalog and its node checks
	Service  Resource = "service"  // a service by name, its instances and checks
	Key      Resource = "key"      // a key of the KV store
	Session  Resource = "session"  // sessions, named by node
	Event    Resource = "event"    // user events by name
	Query    Resource = "query"    // prepared queries by name
	Operator Resource = "operator" // Raft, autopilot, snapshots; has no name
	Keyring  Resource = "keyring"  // gossip keys; has no name
	ACL      Resource = "acl"      // tokens and policies; has no name
)

// Access is what is to be done with a resource.
type Access string

// The accesses. List concerns keys alone, as in Consul.
const (
	Read  Access = "read"
	Write Access = "write"
	List  Access = "list"
)

// Authorizer answers for one token. Implementations are safe for concurrent use, never
// block and never change: a changed policy is seen by resolving the token again.
type Authorizer interface {
	// Authorize returns nil when access to the named resource is granted, otherwise a
	// *Denied. The name is empty for resources that have none.
	Authorize(r Resource, name string, a Access) error
}

// Resolver turns the secret of a request into its Authorizer. The empty secret stands for
// the anonymous token. It may block until ctx ends; ErrNotFound means that no token has
// this secret.
type Resolver interface {
	Resolve(ctx context.Context, secret string) (Authorizer, error)
}

// ErrNotFound is returned by a Resolver for a secret that no token has. Its text is
// Consul's: clients compare it whole.
var ErrNotFound = errors.New("ACL not found")

// ErrDisabled is returned by whatever needs ACLs while they are switched off.
var ErrDisabled = errors.New("ACL support disabled")

// Denied says what was asked for and why it was refused.
type Denied struct {
	Resource Resource
	Name     string // of the resource; empty where it has none
	Access   Access
	Accessor string // public ID of the token, never its secret; empty for the anonymous token
	Reason   string // which rule refused it, or that none granted it
}

// Error begins with Consul's words, which clients match, then names what was missing.
func (d *Denied) Error() string {
	who := "anonymous token"
	if d.Accessor != "" {
		who = fmt.Sprintf("token with AccessorID '%s'", d.Accessor)
	}
	msg := fmt.Sprintf("Permission denied: %s lacks permission '%s:%s'", who, d.Resource, d.Access)
	if d.Name != "" {
		msg += fmt.Sprintf(" on %q", d.Name)
	}
	if d.Reason != "" {
		msg += " (" + d.Reason + ")"
	}
	return msg
}

// IsDenied reports whether err is, or wraps, a refusal.
func IsDenied(err error) bool {
	var d *Denied
	return errors.As(err, &d)
}

// Allowed is Authorize as a predicate, for filtering lists.
func Allowed(az Authorizer, r Resource, name string, a Access) bool {
	return az.Authorize(r, name, a) == nil
}

// AllowAll grants everything to everybody, with or without a token. It is what Consul does
// while ACLs are disabled.
type AllowAll struct{}

// Authorize grants.
func (AllowAll) Authorize(Resource, string, Access) error { return nil }

// Resolve answers every secret with AllowAll itself.
func (AllowAll) Resolve(context.Context, string) (Authorizer, error) { return AllowAll{}, nil }
