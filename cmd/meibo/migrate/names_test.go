package migrate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// tree makes a host's files in a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// What is asked shows each way in which a name is answered here.
func TestRead_Questions(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/dnsmasq.conf": "listen-address=127.0.0.1\nhost-record=box.lan,192.0.2.7\naddress=/app.test/192.0.2.10\nlocal=/lan/\nserver=/corp.example/192.0.2.53\nserver=/consul/127.0.0.1#8600\naddn-hosts=/etc/more\n",
		"etc/hosts":        "127.0.0.1 localhost\n192.0.2.8 web web.lan\n# 192.0.2.9 no\n",
		"etc/more":         "2001:db8::1 six.lan\n0.0.0.0 ads.example\n",
	})
	p, err := Read(Source{Root: root, Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range p.names {
		text := q.String()
		if q.static {
			text += " static"
		}
		if q.asked {
			text += " asked"
		}
		got = append(got, text)
	}
	want := []string{
		"www.example.com. A asked", "box.lan. A static", "7.2.0.192.in-addr.arpa. PTR static", "web. A static", "six.lan. AAAA static",
		"app.test. A static", "consul.service.consul. A", "corp.example. SOA", ". NS",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(p.Refused) > 0 {
		t.Errorf("refused: %v", p.Refused)
	}
}

func TestKnown_Differs(t *testing.T) {
	q := question{name: "web.example.", qtype: dns.TypeA}
	static := q
	static.static = true
	one, other := answer{records: []string{"192.0.2.1"}}, answer{records: []string{"192.0.2.2"}}
	for _, tc := range []struct {
		name  string
		known known
		after answer
		err   error
		want  string
	}{
		{"the same", known{q, one}, one, nil, ""},
		{"another address of a name that is asked elsewhere", known{q, one}, other, nil, ""},
		{"another address of a name that is known here", known{static, one}, other, nil, "web.example. A is answered with 192.0.2.2; before: 192.0.2.1"},
		{"it is denied", known{q, one}, answer{rcode: dns.RcodeNameError}, nil, "web.example. A is answered with NXDOMAIN; before: 192.0.2.1"},
		{"it has no address", known{q, one}, answer{}, nil, "web.example. A is answered with no data; before: 192.0.2.1"},
		{"nobody answers", known{q, one}, answer{}, context.DeadlineExceeded, "web.example. A is not answered any more (before: 192.0.2.1): context deadline exceeded"},
	} {
		if got := tc.known.differs(tc.after, tc.err); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// No diff shows a secret, whatever stands where.
func TestHideSecrets(t *testing.T) {
	for ext, text := range map[string]string{
		".hcl":  "# SECRET\nencrypt = \"SECRET\"\nacl { tokens { default = \"SECRET\" } } # SECRET\nservice { name = \"web\" token = \"SECRET\" check { http = \"http://x/\" header { a = [\"SECRET\"] } } }\ncheck { id = \"c\" token = \"SECRET\" }\n",
		".json": `{"encrypt": "SECRET", "acl": {"tokens": {"default": "SECRET"}}, "services": [{"name": "web", "token": "SECRET", "checks": [{"header": {"a": ["SECRET"]}}]}]}`,
	} {
		got := string(hideSecrets(ext)([]byte(text)))
		if strings.Contains(got, "SECRET") || !strings.Contains(got, "web") {
			t.Errorf("%s: %s", ext, got)
		}
	}
	if got := string(hideSecrets(".hcl")([]byte("encrypt = \"SECRET"))); strings.Contains(got, "SECRET") {
		t.Errorf("of a file that can't be read: %s", got)
	}
}
