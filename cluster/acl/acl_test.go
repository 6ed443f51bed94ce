package acl

import (
	"context"
	"fmt"
	"testing"
)

func TestDenied_NamesWhatWasMissing(t *testing.T) {
	tests := []struct {
		name   string
		denied Denied
		want   string
	}{
		{"anonymous", Denied{Resource: Node, Name: "db1", Access: Read},
			`Permission denied: anonymous token lacks permission 'node:read' on "db1"`},
		{"token and reason", Denied{Resource: Service, Name: "web", Access: Write, Accessor: "a1", Reason: "policy ops says read"},
			`Permission denied: token with AccessorID 'a1' lacks permission 'service:write' on "web" (policy ops says read)`},
		{"no name", Denied{Resource: Operator, Access: Read},
			`Permission denied: anonymous token lacks permission 'operator:read'`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.denied.Error(); got != tc.want {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
			if !IsDenied(fmt.Errorf("read nodes: %w", &tc.denied)) {
				t.Error("a wrapped refusal is not recognised")
			}
		})
	}
}

func TestAllowAll_GrantsEveryTokenEverything(t *testing.T) {
	var resolver Resolver = AllowAll{}
	for _, secret := range []string{"", "no-such-token"} {
		az, err := resolver.Resolve(context.Background(), secret)
		if err != nil {
			t.Fatalf("resolve %q: %v", secret, err)
		}
		if !Allowed(az, ACL, "", Write) {
			t.Errorf("secret %q: acl:write refused", secret)
		}
	}
	if IsDenied(ErrNotFound) {
		t.Error("an unknown token is not a refusal")
	}
}
