package inventory

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// text is an inventory in a form that tables can hold: NAME[=ALIAS...] ADDRESS...
func text(hosts []Host) string {
	var lines []string
	for _, h := range hosts {
		line := strings.Join(append([]string{h.Name}, h.Aliases...), "=")
		for _, a := range h.Addresses {
			line += " " + a.String()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestRead(t *testing.T) {
	for _, tc := range []struct{ name, file, in, want string }{
		{"CSV with a header", "i.csv", "rack,Host Name,IP-Address\nr1,web1,10.0.0.1\nr2,web2,10.0.0.2\n", "web1 10.0.0.1\nweb2 10.0.0.2"},
		{"CSV without a header", "i.csv", "web1,10.0.0.1\nweb2,2001:db8::2\n", "web1 10.0.0.1\nweb2 2001:db8::2"},
		{"CSV of semicolons, quotes and comments", "i.csv", "# list\nname;address\n\"web1\";10.0.0.1\n\nweb2;\n", "web1 10.0.0.1\nweb2"},
		{"CSV of tabs", "i.tsv", "name\taddress\nweb1\t10.0.0.1\nweb2\t\n", "web1 10.0.0.1\nweb2"},
		{"CSV with several addresses, in a cell, columns and lines", "i.csv", "name,ipv4,ipv6\nweb1,10.0.0.1 10.0.1.1,2001:db8::1\nweb1,10.0.2.1,\n", "web1 10.0.0.1 10.0.1.1 2001:db8::1 10.0.2.1"},
		{"CSV from a spreadsheet, told by what it says", "list", "\xef\xbb\xbfname,address\r\nweb1,10.0.0.1\r\n", "web1 10.0.0.1"},
		{"CSV: a name counts before a host name", "i.csv", "hostname,name,ip\nx,web1,10.0.0.1\n", "web1 10.0.0.1"},
		{"JSON as the catalog's", "i.json", `[{"ID":"x","Node":"web1","Address":"10.0.0.1","Meta":{"a":"b"}},{"Node":"web2","Address":"10.0.0.2"}]`, "web1 10.0.0.1\nweb2 10.0.0.2"},
		{"JSON of names and addresses", "-", `{"web1": "10.0.0.1", "web2": ["10.0.0.2", "2001:db8::2"], "web3": null, "web4": {"ip": "10.0.0.4/24"}}`, "web1 10.0.0.1\nweb2 10.0.0.2 2001:db8::2\nweb3\nweb4 10.0.0.4"},
		{"JSON with a head", "i.json", `{"count": 1, "results": [{"name": "web1", "primary_ip": {"family": 4, "address": "10.0.0.1/32"}}]}`, "web1 10.0.0.1"},
		{"JSON of ansible-inventory", "-", `{"_meta":{"hostvars":{"web1":{"ansible_host":"10.0.0.1","x":[1]}}},"all":{"children":["ungrouped","web"]},"web":{"hosts":["web1","web2"]}}`, "web1 10.0.0.1\nweb2"},
		{"JSON of names", "i.json", `["web1", "10.0.0.2"]`, "web1\n10.0.0.2 10.0.0.2"},
		{"INI", "i.ini", "mail.example ansible_host=10.0.0.9 # the old one\n\n[web]\nweb[01:03] ansible_user='a b'\nweb2:2222 ansible_host=\"10.0.0.2\"\n[web:vars]\nansible_host=10.9.9.9\nfoo\n[all:children]\nweb\n; end\n",
			"mail.example 10.0.0.9\nweb01\nweb02\nweb03\nweb2 10.0.0.2"},
		{"INI of ranges", "i.ini", "db-[a:c:2].x[8:10]\n[a:b].example\n", "db-a.x8\ndb-a.x9\ndb-a.x10\ndb-c.x8\ndb-c.x9\ndb-c.x10\na.example\nb.example"},
		{"INI of addresses, and a target that is a name", "hosts", "10.0.0.1 ansible_user=root\n10.0.0.2\n[2001:db8::1]:22\nweb ansible_host=web1.example\n10.0.0.4 ansible_host=10.0.1.4\nvm ansible_host={{inner}}",
			"10.0.0.1 10.0.0.1\n10.0.0.2 10.0.0.2\n2001:db8::1 2001:db8::1\nweb=web1.example\n10.0.0.4 10.0.1.4\nvm"},
		{"YAML", "i.yml", "---\nall:\n  hosts:\n    mail: {ansible_host: 10.0.0.9}\n  children:\n    web:\n      hosts:\n        web[1:2]:\n        web3:\n          ansible_host: 10.0.0.3\n      vars: {x: y}\n    db:\n",
			"mail 10.0.0.9\nweb1\nweb2\nweb3 10.0.0.3"},
		{"YAML without all, with anchors", "inventory", "web:\n  hosts:\n    web1: &v\n      ansible_host: 10.0.0.1\n    web2:\n      <<: *v\n      ansible_host: 10.0.0.2\n", "web1 10.0.0.1\nweb2 10.0.0.2"},
		{"YAML list", "i.yaml", "- name: web1\n  address: 10.0.0.1\n- web2\n", "web1 10.0.0.1\nweb2"},
		{"hosts file", "/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 me\n::1 ip6-localhost\nfe00::0 ip6-localnet\nff02::1 ip6-allnodes\n0.0.0.0 ads.example\n10.0.0.1 web1.example web1 # x\n2001:db8::1\tweb1.example\n10.0.0.2 web2\n",
			"web1.example=web1 10.0.0.1 2001:db8::1\nweb2 10.0.0.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts, err := Read(tc.file, strings.NewReader(tc.in), Guess)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, text(hosts)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Each fault says file, line, and what was expected.
func TestRead_Faults(t *testing.T) {
	for _, tc := range []struct{ name, file, in, want string }{
		{"nothing", "i.csv", "", "i.csv: no host in it"},
		{"no text", "i.csv", "name,ip\na\x00,10.0.0.1\n", "i.csv:2: a byte 0: this is no text"},
		{"CSV without names", "i.csv", "rack,unit\nr1,3\n", "i.csv:1: no column of names: expected a header with name, node, host, hostname or fqdn, and with address, ip, ip_address, ipv4, ipv6 or ansible_host; or name and address in each line\ni.csv: no host in it"},
		{"CSV with a wrong address", "i.csv", "name,ip\nweb1,10.0.0.1\nweb2,10.0.0.256\nweb3,rack\n", "i.csv:3: \"10.0.0.256\" of web2: expected an IP address\ni.csv:4: \"rack\" of web3: expected an IP address"},
		{"CSV with a short line", "i.csv", "name,ip\nweb1\n", "i.csv:2: expected 2 columns, as the header has, got 1\ni.csv: no host in it"},
		{"CSV with an open quote", "i.csv", "name,ip\n\"web1,10.0.0.1\n", "i.csv:2: column 16: extraneous or missing \" in quoted-field\ni.csv: no host in it"},
		{"CSV with a wrong name", "i.csv", "name,ip\nweb 1,10.0.0.1\n,10.0.0.2\n", "i.csv:2: \"web 1\" is no name of a host: expected letters, digits, dots, dashes and underscores, or an IP address\n" +
			"i.csv:3: \"\" is no name of a host: expected letters, digits, dots, dashes and underscores, or an IP address\ni.csv: no host in it"},
		{"JSON that ends early", "i.json", "[\n{\"name\": \"web1\"", "i.json:2: parse JSON: it ends within a value\ni.json: no host in it"},
		{"JSON with a comma too many", "i.json", "[\n{\"name\": \"web1\"},\n]\n", "i.json:3: parse JSON: invalid character ']' looking for beginning of value\ni.json: no host in it"},
		{"JSON with more behind it", "i.json", "[\"web1\"]\n[]", "i.json:2: parse JSON: text after the end of the value\ni.json: no host in it"},
		{"JSON of a number", "i.json", "3", "i.json:1: a text: expected a list or an object of hosts\ni.json: no host in it"},
		{"JSON without names", "i.json", "[\n {\"name\": \"web1\"},\n {\"address\": \"10.0.0.1\"}]", "i.json:3: a host without a name: expected a key name, node, host, hostname or fqdn"},
		{"JSON of lists", "i.json", "[[]]", "i.json:1: a list: expected a host, an object with name, node, host, hostname or fqdn, and address, ip, ip_address, ipv4, ipv6 or ansible_host\ni.json: no host in it"},
		{"JSON nested for ever", "i.json", strings.Repeat("[", 1000), "i.json:1: parse JSON: nested deeper than 100\ni.json: no host in it"},
		{"INI with a word", "i.ini", "[web]\nweb1 10.0.0.1\n", "i.ini:2: \"10.0.0.1\": expected variables, NAME=VALUE each, after the host\ni.ini: no host in it"},
		{"INI with a section of no kind", "i.ini", "[web:varz]\nx=1\n", "i.ini:1: [web:varz]: expected [GROUP], [GROUP:vars] or [GROUP:children]\ni.ini:2: \"x=1\" is no name of a host: expected letters, digits, dots, dashes and underscores, or an IP address\ni.ini: no host in it"},
		{"INI with an open quote", "i.ini", "web1 a='b\n", "i.ini:1: a ' without its end\ni.ini: no host in it"},
		{"INI with a wrong range", "i.ini", "web[3:1]\nweb[a:]\nweb[1\n", "i.ini:1: web[3:1]: [3:1]: expected a range of numbers or letters, [FIRST:LAST] or [FIRST:LAST:STEP]\n" +
			"i.ini:2: web[a:]: [a:]: expected a range of numbers or letters, [FIRST:LAST] or [FIRST:LAST:STEP]\ni.ini:3: web[1: \"[\" without \"]\": expected a range, [FIRST:LAST]\ni.ini: no host in it"},
		{"INI with a range of very many", "i.ini", "w[0:999][0:999][0:9]\nw[0:99999999]", "i.ini:1: w[0:999][0:999][0:9]: [0:9]: more than 1048576 hosts\ni.ini:2: w[0:99999999]: [0:99999999]: more than 1048576 hosts\ni.ini: no host in it"},
		{"INI with a wrong address", "i.ini", "web1 ansible_host=10.0.0.999\n", "i.ini:1: \"10.0.0.999\" of web1: expected an IP address"},
		{"YAML that is none", "i.yml", "all:\n  hosts: [\n", "i.yml:2: parse YAML: did not find expected node content\ni.yml: no host in it"},
		{"YAML with a wrong key", "i.yml", "all:\n  host:\n    web1:\n", "i.yml:2: key \"host\" of group all: expected hosts, children or vars\ni.yml: no host in it"},
		{"YAML with hosts that are a text", "i.yml", "all:\n  hosts: web1\n", "i.yml:2: hosts of group all is a text: expected an object with a key for each\ni.yml: no host in it"},
		{"YAML with a host that is a text", "i.yml", "all:\n  hosts:\n    web1: 10.0.0.1\n", "i.yml:3: host web1 is a text: expected an object with its variables\ni.yml: no host in it"},
		{"YAML of groups whose keys are wrong", "i.yml", "web:\n  host:\n    web1: {}\n", "i.yml:2: web has \"host\", and no address: expected a host, with address, ip, ip_address, ipv4, ipv6 or ansible_host; or a group of Ansible's, with hosts, children or vars"},
		{"YAML that laughs", "i.yml", "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + laughs("abcdefghi"), "i.yml:6: aliases stand for more values than an inventory has\ni.yml: no host in it"},
		{"a hosts file with a name in front", "/etc/hosts", "10.0.0.1 web1\nweb2 10.0.0.2\n10.0.0.3\n", "/etc/hosts:2: \"web2\": expected an IP address and the names of its host\n/etc/hosts:3: no name for 10.0.0.3: expected an IP address and the names of its host"},
		{"very many faults", "hosts", "10.0.0.1 a\n" + strings.Repeat("x y\n", 100), func() string {
			var lines []string
			for i := range 10 {
				lines = append(lines, fmt.Sprintf("hosts:%d: \"x\": expected an IP address and the names of its host", i+2))
			}
			return strings.Join(append(lines, "hosts: and 90 faults more"), "\n")
		}()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts, err := Read(tc.file, strings.NewReader(tc.in), Guess)
			if err == nil {
				t.Fatalf("it is taken:\n%s", text(hosts))
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// laughs is a billion values in a few lines of YAML.
func laughs(names string) string {
	var b strings.Builder
	for i := 1; i < len(names); i++ {
		ref := strings.Repeat(",*"+names[i-1:i], 10)[1:]
		fmt.Fprintf(&b, "%c: &%c [%s]\n", names[i], names[i], ref)
	}
	return b.String()
}

func TestCompare(t *testing.T) {
	for _, tc := range []struct{ name, hosts, nodes, want string }{
		{"they agree", "web1 10.0.0.1\nweb2 10.0.0.2", "web1 10.0.0.1\nweb2 10.0.0.2", ""},
		{"letter case and the last dot don't count", "WEB1. 10.0.0.1", "web1 10.0.0.1", ""},
		{"either side lacks one", "web1 10.0.0.1\nweb2 10.0.0.2", "web2 10.0.0.2\nweb3 10.0.0.3", "not in the catalog: web1 10.0.0.1 | \nnot in the inventory:  | web3 10.0.0.3"},
		{"another address", "web1 10.0.0.1 10.0.1.1", "web1 10.0.0.9", "other address: web1 10.0.0.1 10.0.1.1 | web1 10.0.0.9"},
		{"one of several addresses is enough, on either side", "web1 10.0.0.1 10.0.1.1\nweb2 2001:db8::2", "web1 10.0.1.1\nweb2 10.0.0.2 2001:db8::2", ""},
		{"two that have each other's address", "a 10.0.0.1\nb 10.0.0.2", "a 10.0.0.2\nb 10.0.0.1", "other address: a 10.0.0.1 | a 10.0.0.2\nother address: b 10.0.0.2 | b 10.0.0.1"},
		{"another name", "web01 10.0.0.1", "web1 10.0.0.1", "other name: web01 10.0.0.1 | web1 10.0.0.1"},
		{"a domain on one side", "web1.example 10.0.0.1\nweb2 10.0.0.2", "web1 10.0.0.1\nweb2.example 10.0.0.9", "other address: web2 10.0.0.2 | web2.example 10.0.0.9"},
		{"two domains", "web1.a 10.0.0.1", "web1.b 10.0.0.9", "not in the catalog: web1.a 10.0.0.1 | \nnot in the inventory:  | web1.b 10.0.0.9"},
		{"a first label of two hosts", "web1.a 10.0.0.1\nweb1.b 10.0.0.2", "web1 10.0.0.9", "not in the catalog: web1.a 10.0.0.1 | \nnot in the catalog: web1.b 10.0.0.2 | \nnot in the inventory:  | web1 10.0.0.9"},
		{"an alias", "web=web1 10.0.0.1", "web1 10.0.0.1", ""},
		{"a host that is called by its address", "10.0.0.1 10.0.0.1\n10.0.0.2 10.0.0.2", "web1 10.0.0.1\nweb3 10.0.0.3", "not in the catalog: 10.0.0.2 10.0.0.2 | \nnot in the inventory:  | web3 10.0.0.3"},
		{"a node whose address is a name", "db=db.example", "db db.example", "by name: db"},
		{"a host without address", "web1", "web1 10.0.0.1", "by name: web1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var nodes []Node
			for line := range strings.Lines(tc.nodes) {
				f := strings.Fields(line)
				nodes = append(nodes, Node{Name: f[0], Address: f[1], Others: f[2:]})
			}
			r := Compare(parsed(t, tc.hosts), nodes)
			var got []string
			for _, d := range r.Differences {
				host := text([]Host{{Name: d.Host, Addresses: d.Addresses}})
				got = append(got, fmt.Sprintf("%s: %s | %s", d.Kind, host, strings.TrimSpace(d.Node+" "+d.NodeAddress)))
			}
			if len(r.ByName) > 0 {
				got = append(got, "by name: "+strings.Join(r.ByName, ","))
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// parsed is the other way round of text.
func parsed(t *testing.T, s string) (hosts []Host) {
	l := &list{at: map[string]int{}}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		all := strings.Split(f[0], "=")
		h := l.host(0, all[0])
		for _, alias := range all[1:] {
			h.alias(alias)
		}
		for _, addr := range f[1:] {
			l.address(0, h, addr, false)
		}
	}
	if err := l.err(); err != nil {
		t.Fatal(err)
	}
	return l.hosts
}

// FuzzRead: whatever a file says, it is hosts with names or faults that name the file, and what was read agrees with itself.
func FuzzRead(f *testing.F) {
	for i, in := range []string{
		"name,ip\nweb1,10.0.0.1\n", `[{"Node":"a","Address":"10.0.0.1"}]`, `{"_meta":{"hostvars":{"a":{"ansible_host":"b"}}}}`,
		"[web]\nweb[01:20:2] ansible_host='10.0.0.1' # x\n", "all:\n  hosts:\n    a: {ansible_host: 10.0.0.1}\n  children: {b: {hosts: {c: }}}\n", "10.0.0.1 a b\n", "a: &a [b]\nc: *a\n", "{<<: {a: 10.0.0.1}}",
	} {
		f.Add(uint8(i), in)
	}
	f.Fuzz(func(t *testing.T, which uint8, in string) {
		format := append([]Format{Guess}, Formats...)[int(which)%(1+len(Formats))]
		hosts, err := Read("FILE", strings.NewReader(in), format)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "FILE:") {
					t.Errorf("a fault without its file: %q", err)
					break
				}
			}
			return
		}
		var nodes []Node
		for _, h := range hosts {
			if !isName(h.Name) {
				t.Errorf("a host is called %q", h.Name)
			}
			n := Node{Name: h.Name}
			for _, a := range h.Addresses {
				n.Address = a.String()
			}
			nodes = append(nodes, n)
		}
		if r := Compare(hosts, nodes); len(hosts) == 0 || len(r.Differences) > 0 {
			t.Errorf("%d hosts differ from themselves: %+v", len(hosts), r.Differences)
		}
	})
}
