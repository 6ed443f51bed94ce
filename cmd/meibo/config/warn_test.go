package config

import (
	"fmt"
	"regexp"
	"testing"
)

// What is taken, and is hardly meant so.
func TestLoad_WarnsOfWhatHidesOrLeadsNowhere(t *testing.T) {
	for _, tc := range []struct{ name, hcl, want string }{
		{"a suffix twice", "forward \"corp.\" { servers = [\"10.0.0.1\"] }\nforward \"CORP.\" { servers = [\"10.0.0.2\"] }",
			`[a.hcl:2: key ` + "`forward \"CORP.\"`" + `: takes the place of the block "corp." at a.hcl:1, for corp.: leave one of them]`},
		{"networks that share zones, once", "forward \"10.0.0.0/15\" { servers = [\"10.0.0.1\"] }\nforward \"10.0.0.0/14\" { servers = [\"10.0.0.2\"] }",
			`[a.hcl:2: key ` + "`forward \"10.0.0.0/14\"`" + `: takes the place of the block "10.0.0.0/15" at a.hcl:1, for 0.10.in-addr.arpa.: leave one of them]`},
		{"suffixes within one another", "forward \"corp\" { servers = [\"10.0.0.1\"] }\nforward \"a.corp\" { servers = [\"10.0.0.2\"] }", "[]"},
		{"a circle of aliases", `hosts { records = ["a.home CNAME b.home", "b.home. 300 IN CNAME C.home.", "c.home 1h cname a.HOME"] }`,
			`[a.hcl:1: key "hosts.records": a.home → b.home → c.home → a.home is a circle of aliases, which leads to no address]`},
		{"an alias of itself, and one that leads to a circle", `hosts { records = ["x.home CNAME a.home", "a.home CNAME a.home", "y.home CNAME x.home"] }`,
			`[a.hcl:1: key "hosts.records": a.home → a.home is a circle of aliases, which leads to no address]`},
		{"aliases that lead somewhere", `hosts { records = ["a.home CNAME b.home", "b.home A 192.0.2.1", "c.home CNAME b.home", "b.home TXT CNAME a.home", "d.home CNAME www.example"] }`, "[]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, warnings, err := load(t, tc.hcl)
			if err != nil {
				t.Fatal(err)
			}
			if got := regexp.MustCompile(`/\S*/`).ReplaceAllString(fmt.Sprint(warnings), ""); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}
