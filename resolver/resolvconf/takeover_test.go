package resolvconf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// owned is a host by who owns its resolv.conf, and what becomes of it.
type owned struct {
	name  string
	files map[string]string // what begins with "->" is a link

	owner     Owner
	via       string
	upstreams string // and the file that names them
	resolv    string // what is in resolv.conf after Install; "": as it was
	changes   map[string]string
	programs  []string
	only      string
}

const (
	oursHead = "# Written by meibo, which this host's programs ask. `meibo resolv restore` puts back what was here.\n"
	ours     = oursHead + "nameserver 127.0.0.1\n"
	uplink   = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\n"
	stub     = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n"
)

var (
	resolvedTree = map[string]string{
		"/etc/resolv.conf":                      "->../run/systemd/resolve/stub-resolv.conf",
		"/run/systemd/resolve/stub-resolv.conf": "# This is " + resolvedFile + " managed by man:systemd-resolved(8).\n" + stub,
		resolvedFile:                            uplink,
	}
	wholeDropIn = "# Of meibo: see `meibo resolv status`.\n[Resolve]\nDNS=\nDNS=127.0.0.1\nDomains=~.\nDNSStubListener=no\n"
	resolvedRun = []string{"systemctl restart systemd-resolved.service"}
)

func with(tree map[string]string, more ...string) map[string]string {
	out := map[string]string{}
	for k, v := range tree {
		out[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func owners() []owned {
	const lease = "lease {\n  option domain-name-servers 192.0.2.9;\n}\nlease {\n  interface \"eth0\";\n  option domain-name-servers 192.0.2.1,192.0.2.2;\n}\n"
	const resolvedIn = "/etc/systemd/resolved.conf.d/zz-meibo.conf"
	return []owned{
		{name: "a plain file", files: map[string]string{"/etc/resolv.conf": "# mine\n" + uplink + "options rotate\n"},
			owner: Nobody, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\noptions rotate\n"},
		{name: "missing", files: map[string]string{"/etc/hosts": ""}, owner: Nobody, resolv: ours},
		{name: "a link elsewhere", files: map[string]string{"/etc/resolv.conf": "->/mnt/wsl/resolv.conf", "/mnt/wsl/resolv.conf": uplink},
			owner: Nobody, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n"},
		{name: "a link to nothing", files: map[string]string{"/etc/resolv.conf": "->/mnt/wsl/resolv.conf"}, owner: Nobody, resolv: ours},

		{name: "systemd-resolved", files: resolvedTree, owner: Resolved, upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile,
			resolv: ours + "search lan\noptions edns0 trust-ad\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "systemd-resolved by an absolute link", files: with(resolvedTree, "/etc/resolv.conf", "->/run/systemd/resolve/resolv.conf"), owner: Resolved,
			upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "systemd-resolved's static file", files: with(resolvedTree, "/etc/resolv.conf", "->/usr/lib/systemd/resolv.conf", "/usr/lib/systemd/resolv.conf", stub), owner: Resolved,
			upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile, resolv: ours + "search lan\noptions edns0 trust-ad\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "systemd-resolved's stub in a plain file", files: with(resolvedTree, "/etc/resolv.conf", stub), owner: Resolved,
			upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile, resolv: ours + "search lan\noptions edns0 trust-ad\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "systemd-resolved for .consul alone", files: resolvedTree, owner: Resolved, only: "consul", upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile,
			changes: map[string]string{resolvedIn: "# Of meibo: see `meibo resolv status`.\n[Resolve]\nDNS=\nDNS=127.0.0.1\nDomains=~consul\n"}, programs: resolvedRun},
		{name: "systemd-resolved that is gone", files: map[string]string{"/etc/resolv.conf": "->../run/systemd/resolve/stub-resolv.conf"}, owner: Nobody, resolv: ours},
		{name: "a plain file, and programs that ask systemd-resolved", files: with(resolvedTree, "/etc/resolv.conf", uplink, "/etc/nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n"),
			owner: Nobody, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "netplan over systemd-resolved", files: with(resolvedTree, "/etc/netplan/01-net.yaml", "network: {}\n"), owner: Resolved, via: "netplan",
			upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile, resolv: ours + "search lan\noptions edns0 trust-ad\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},
		{name: "cloud-init by netplan", files: with(resolvedTree, "/etc/netplan/50-cloud-init.yaml", "network: {}\n"), owner: Resolved, via: "netplan, of cloud-init",
			upstreams: "192.0.2.1 192.0.2.2 " + resolvedFile, resolv: ours + "search lan\noptions edns0 trust-ad\n", changes: map[string]string{resolvedIn: wholeDropIn}, programs: resolvedRun},

		{name: "NetworkManager", files: map[string]string{"/etc/resolv.conf": "# Generated by NetworkManager\n" + uplink,
			"/run/NetworkManager/no-stub-resolv.conf": uplink},
			owner: NetworkManager, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n", programs: []string{"systemctl reload NetworkManager.service"},
			changes: map[string]string{"/etc/NetworkManager/conf.d/zz-meibo.conf": "# meibo writes /etc/resolv.conf: see `meibo resolv status`.\n[main]\ndns=none\nrc-manager=unmanaged\n"}},
		{name: "NetworkManager with its dnsmasq, by a link", files: map[string]string{"/etc/resolv.conf": "->/run/NetworkManager/resolv.conf",
			"/run/NetworkManager/resolv.conf": "# Generated by NetworkManager\nnameserver 127.0.0.1\n", "/run/NetworkManager/no-stub-resolv.conf": uplink},
			owner: NetworkManager, upstreams: "192.0.2.1 192.0.2.2 /run/NetworkManager/no-stub-resolv.conf", resolv: ours, programs: []string{"systemctl reload NetworkManager.service"},
			changes: map[string]string{"/etc/NetworkManager/conf.d/zz-meibo.conf": "# meibo writes /etc/resolv.conf: see `meibo resolv status`.\n[main]\ndns=none\nrc-manager=unmanaged\n"}},
		{name: "a head that names NetworkManager, which is gone", files: map[string]string{"/etc/resolv.conf": "# Generated by NetworkManager\n" + uplink},
			owner: Nobody, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n"},

		{name: "resolvconf", files: map[string]string{"/etc/resolv.conf": "->../run/resolvconf/resolv.conf", "/run/resolvconf/resolv.conf": uplink, "/run/resolvconf/interface/eth0.dhclient": uplink},
			owner: DebianConf, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", programs: []string{"resolvconf -a lo.meibo"}},
		{name: "openresolv", files: map[string]string{"/etc/resolv.conf": "# Generated by resolvconf\n" + uplink, "/etc/resolvconf.conf": "# mine\nresolv_conf=/etc/resolv.conf", "/run/resolvconf/interfaces/eth0.dhcp": uplink},
			owner: OpenResolv, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", programs: []string{"resolvconf -u"},
			changes: map[string]string{"/etc/resolvconf.conf": "# mine\nresolv_conf=/etc/resolv.conf\n" + blockBegin + "name_servers=127.0.0.1\n" + blockEnd}},
		{name: "dhclient of Debian, by its lease", files: map[string]string{"/etc/resolv.conf": "domain lan\nsearch lan\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
			"/var/lib/dhcp/dhclient.eth0.leases": lease, dhclientHooks + "/debug": ""},
			owner: Dhclient, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n", changes: map[string]string{dhclientHooks + "/meibo": "*"}},
		{name: "dhclient elsewhere, by its head", files: map[string]string{"/etc/resolv.conf": "; generated by /usr/sbin/dhclient-script\n" + uplink, "/etc/dhcp/dhclient.conf": "timeout 30;\n"},
			owner: Dhclient, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n",
			changes: map[string]string{"/etc/dhcp/dhclient.conf": "timeout 30;\n" + blockBegin + "supersede domain-name-servers 127.0.0.1;\n" + blockEnd}},
		{name: "a plain file with other servers than the lease's", files: map[string]string{"/etc/resolv.conf": "nameserver 192.0.2.7\n", "/var/lib/dhcp/dhclient.leases": lease},
			owner: Nobody, upstreams: "192.0.2.7 /etc/resolv.conf", resolv: ours},
		{name: "dhcpcd", files: map[string]string{"/etc/resolv.conf": "# Generated by dhcpcd from eth0.dhcp\n" + uplink, "/etc/dhcpcd.conf": "hostname\ninterface eth1\n"},
			owner: Dhcpcd, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n", programs: []string{"dhcpcd -n"},
			changes: map[string]string{"/etc/dhcpcd.conf": blockBegin + "nohook resolv.conf\n" + blockEnd + "hostname\ninterface eth1\n"}},
		{name: "cloud-init", files: map[string]string{"/etc/resolv.conf": "# Your system has been configured with 'manage-resolv-conf' set to true.\n" + uplink, "/etc/cloud/cloud.cfg.d/05_logging.cfg": ""},
			owner: CloudInit, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n",
			changes: map[string]string{"/etc/cloud/cloud.cfg.d/zz-meibo.cfg": "# meibo writes /etc/resolv.conf: see `meibo resolv status`.\nmanage_resolv_conf: false\n"}},
		{name: "netconfig of SUSE", files: map[string]string{"/etc/resolv.conf": "->/run/netconfig/resolv.conf", "/run/netconfig/resolv.conf": "### /etc/resolv.conf is a symlink to /run/netconfig/resolv.conf\n" + uplink, netconfigFile: "NETCONFIG_DNS_POLICY=\"auto\"\n"},
			owner: Netconfig, upstreams: "192.0.2.1 192.0.2.2 /etc/resolv.conf", resolv: ours + "search lan\n",
			changes: map[string]string{netconfigFile: "NETCONFIG_DNS_POLICY=\"auto\"\n" + blockBegin + "NETCONFIG_DNS_POLICY=\"\"\n" + blockEnd}},
	}
}

// plant makes a tree of files, with times of long ago.
func plant(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	// In memory, where syncing takes no time.
	root, err := os.MkdirTemp("/dev/shm", "meibo-tree-")
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	for path, text := range files {
		at := filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		if to, ok := strings.CutPrefix(text, "->"); ok {
			must(t, os.Symlink(to, at))
			continue
		}
		must(t, os.WriteFile(at, []byte(text), 0o644))
		must(t, os.Chmod(at, 0o640))
		must(t, os.Chtimes(at, time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)))
	}
	return root
}

// pictured is all that is in a tree, but the times of folders.
func pictured(t *testing.T, root string) map[string]content {
	t.Helper()
	out := map[string]content{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, root)
		if d.IsDir() {
			info, err := d.Info()
			out[rel+"/"] = content{Kind: "folder", Mode: uint32(info.Mode())}
			return err
		}
		out[rel], err = tree{root: root}.read(rel)
		return err
	}))
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(servers []netip.AddrPort) string {
	var out []string
	for _, s := range servers {
		out = append(out, s.Addr().String())
	}
	return strings.Join(out, " ")
}

func TestInstallAndRestore_ByteForByteWhoeverOwnsIt(t *testing.T) {
	for _, tc := range owners() {
		t.Run(tc.name, func(t *testing.T) {
			root := plant(t, tc.files)
			before := pictured(t, root)
			h := &Host{Root: root}
			was, err := h.Status()
			must(t, err)
			if was.State != Off || was.Owner != tc.owner || was.Via != tc.via {
				t.Errorf("before: %s, owner %s (%s) via %q; want owner %s via %q", was.State, was.Owner, was.Why, was.Via, tc.owner, tc.via)
			}
			if got := strings.TrimSpace(names(was.Upstreams) + " " + was.UpstreamsFrom); got != tc.upstreams {
				t.Errorf("upstreams %q, want %q", got, tc.upstreams)
			}
			is, err := h.Install(t.Context(), Options{Only: tc.only})
			must(t, err)
			if is.State != Installed || is.Owner != tc.owner {
				t.Errorf("after: %s, owner %s", is.State, is.Owner)
			}
			if got := names(is.Upstreams); got != names(was.Upstreams) {
				t.Errorf("upstreams are %q after, were %q", got, names(was.Upstreams))
			}
			if diff := cmp.Diff(append([]string{}, tc.programs...), is.Programs); diff != "" {
				t.Errorf("programs -want +got:\n%s", diff)
			}
			after, want := pictured(t, root), with(tc.changes)
			if tc.resolv != "" {
				want[DefaultPath] = tc.resolv
			}
			for path, c := range after {
				text, ok := want[path]
				passing := strings.HasPrefix(path, DefaultStateDir) || c.Kind == "folder" || strings.HasSuffix(path, ".meibo-old")
				if !ok && !passing && !c.equal(before[path]) {
					t.Errorf("%s was changed: %s", path, c.Data)
				}
				if ok && (text != "*" && string(c.Data) != text || c.Kind != regular) {
					t.Errorf("%s holds\n%s%s, want\n%s", path, c.Data, c.Target, text)
				}
				delete(want, path)
			}
			for path := range want {
				t.Errorf("%s was not made", path)
			}
			// Once more changes nothing.
			_, err = h.Install(t.Context(), Options{Only: tc.only})
			must(t, err)
			if diff := cmp.Diff(after, pictured(t, root)); diff != "" {
				t.Errorf("a second Install -want +got:\n%s", diff)
			}
			back, err := h.Restore(t.Context(), false)
			must(t, err)
			if back.State != Off || back.Owner != tc.owner {
				t.Errorf("restored: %s, owner %s", back.State, back.Owner)
			}
			same(t, before, pictured(t, root))
		})
	}
}

// same holds a tree to what it was; folders that every host has may be new.
func same(t *testing.T, before, after map[string]content) {
	t.Helper()
	for _, usual := range []string{"/var/", "/var/lib/"} {
		delete(before, usual)
		delete(after, usual)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("not as it was, -before +after:\n%s", diff)
	}
}

// killed is how a process ends in the middle: nothing of it goes on.
type killed struct{}

// until ends or fails the change at its k-th operation.
func until(h *Host, k int, end func(op, path string) error) (operations *int) {
	n := 0
	h.before = func(op, path string) error {
		if n++; n-1 == k {
			return end(op, path)
		}
		return nil
	}
	return &n
}

// resolves reports whether what a host has at the moment lets its programs resolve: by true servers, or by meibo, which
// must then know where to ask.
func resolves(t *testing.T, h *Host, wanted string) {
	t.Helper()
	text, err := h.tree().follow(DefaultPath)
	if err != nil && wanted == "" {
		return // there was none
	}
	servers := Parse(text).Servers
	if len(servers) == 0 {
		t.Errorf("resolv.conf names nobody: %q, %v", text, err)
		return
	}
	up, err := Find(Config{Root: h.Root, Self: h.self()})
	if wanted != "" && (err != nil || !strings.HasPrefix(wanted, names(up.Servers))) {
		t.Errorf("resolv.conf names %v, and upstreams are %v, %v; want %s", servers, up.Servers, err, wanted)
	}
}

func TestInstall_KilledAtEachStep(t *testing.T) {
	kills := 0
	for _, tc := range owners() {
		for k := 0; ; k++ {
			root := plant(t, tc.files)
			before := pictured(t, root)
			died := dies(&Host{Root: root}, k, func(h *Host) { _, _ = h.Install(t.Context(), Options{Only: tc.only}) })
			resolves(t, &Host{Root: root}, tc.upstreams)
			if !died {
				break
			}
			kills++
			h := &Host{Root: root}
			if s, err := h.Status(); err != nil || s.State == Installed && k == 0 {
				t.Errorf("%s, killed at %d: %s, %v", tc.name, k, s.State, err)
			}
			// Restoring is killed too, once, wherever.
			dies(&Host{Root: root}, k%7, func(h *Host) { _, _ = h.Restore(t.Context(), false) })
			resolves(t, h, tc.upstreams)
			_, err := h.Restore(t.Context(), false)
			must(t, err)
			cleanTemporary(t, root)
			if same(t, before, pictured(t, root)); t.Failed() {
				t.Fatalf("%s, killed at operation %d", tc.name, k)
			}
		}
	}
	t.Logf("%d kills", kills)
}

// cleanTemporary removes what a killed process left of a journal that it never finished: nothing was changed yet.
func cleanTemporary(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, DefaultStateDir)
	_ = os.Remove(filepath.Join(root, fresh(filepath.Join(DefaultStateDir, journalName))))
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// dies runs f until the k-th operation; it is false where there are fewer.
func dies(h *Host, k int, f func(*Host)) (died bool) {
	until(h, k, func(string, string) error { panic(killed{}) })
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			died = true
		}
	}()
	f(h)
	return false
}

func TestRestore_KilledAtEachStep(t *testing.T) {
	kills := 0
	for _, tc := range owners() {
		for k := 0; ; k++ {
			root := plant(t, tc.files)
			before := pictured(t, root)
			h := &Host{Root: root}
			_, err := h.Install(t.Context(), Options{Only: tc.only})
			must(t, err)
			died := dies(&Host{Root: root}, k, func(h *Host) { _, _ = h.Restore(t.Context(), false) })
			resolves(t, h, tc.upstreams)
			_, err = h.Restore(t.Context(), false)
			must(t, err)
			cleanTemporary(t, root)
			if same(t, before, pictured(t, root)); t.Failed() {
				t.Fatalf("%s, killed at operation %d", tc.name, k)
			}
			if !died {
				break
			}
			kills++
		}
	}
	t.Logf("%d kills", kills)
}

func TestInstall_FailingAtEachStepGoesBack(t *testing.T) {
	fault := errors.New("a fault")
	failures := 0
	for _, tc := range owners() {
		for k := 0; ; k++ {
			root := plant(t, tc.files)
			before := pictured(t, root)
			h := &Host{Root: root}
			n := until(h, k, func(op, path string) error {
				if path == "dhcpcd -n" {
					return nil // it may fail: dhcpcd may not run now
				}
				return fault
			})
			_, err := h.Install(t.Context(), Options{Only: tc.only})
			if *n <= k {
				must(t, err)
				break
			}
			if failures++; err == nil && tc.owner == Dhcpcd {
				continue
			}
			if !errors.Is(err, fault) {
				t.Fatalf("%s, failed at %d: %v", tc.name, k, err)
			}
			if same(t, before, pictured(t, root)); t.Failed() {
				t.Fatalf("%s, failed at operation %d: %v", tc.name, k, err)
			}
		}
	}
	t.Logf("%d failures", failures)
}

// A disk that is full from some moment on, for the change and for what takes it back.
func TestInstall_DiskFullFromEachStepOn(t *testing.T) {
	full := errors.New("no space left on device")
	for _, tc := range owners() {
		for k := 0; ; k++ {
			root := plant(t, tc.files)
			before := pictured(t, root)
			h := &Host{Root: root}
			n := 0
			h.before = func(op, path string) error {
				if n++; n > k && (op == "create" || op == "write" || op == "mkdir") {
					return full
				}
				return nil
			}
			_, err := h.Install(t.Context(), Options{Only: tc.only})
			if err == nil {
				// Full afterwards: it comes back all the same.
				_, err := h.Restore(t.Context(), false)
				must(t, err)
				same(t, before, pictured(t, root))
				break
			}
			if !errors.Is(err, full) || !strings.Contains(err.Error(), "no space") {
				t.Fatalf("%s: %v", tc.name, err)
			}
			if same(t, before, pictured(t, root)); t.Failed() {
				t.Fatalf("%s, full from operation %d on: %v", tc.name, k, err)
			}
		}
	}
}

// host is one whose programs are played.
type played struct {
	Host
	ran   []string
	fails map[string]error                 // by program
	does  func(root string, args []string) // what a program does
}

func play(t *testing.T, files map[string]string) *played {
	p := &played{Host: Host{Root: plant(t, files)}, fails: map[string]error{}}
	p.Run = func(_ context.Context, input string, args []string) error {
		p.ran = append(p.ran, strings.TrimSpace(strings.Join(args, " ")+" "+input))
		if p.does != nil {
			p.does(p.Root, args)
		}
		return p.fails[args[0]]
	}
	return p
}

func (p *played) resolv(t *testing.T) string {
	t.Helper()
	text, err := p.tree().follow(DefaultPath)
	must(t, err)
	return text
}

func (p *played) overwrite(t *testing.T, text string) {
	t.Helper()
	at := filepath.Join(p.Root, DefaultPath)
	must(t, os.WriteFile(at+".theirs", []byte(text), 0o644))
	must(t, os.Rename(at+".theirs", at))
}

func TestInstall_ProgramsAreToldAndToldBack(t *testing.T) {
	p := play(t, map[string]string{"/etc/resolv.conf": "->../run/resolvconf/resolv.conf", "/run/resolvconf/resolv.conf": uplink, "/run/resolvconf/interface/eth0": uplink})
	before := pictured(t, p.Root)
	p.does = func(root string, args []string) {
		text := map[string]string{"-a": "nameserver 127.0.0.1\n", "-d": uplink}[args[1]]
		must(t, os.WriteFile(filepath.Join(root, "/run/resolvconf/resolv.conf"), []byte(text), 0o640))
		must(t, os.Chtimes(filepath.Join(root, "/run/resolvconf/resolv.conf"), time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)))
	}
	s, err := p.Install(t.Context(), Options{})
	must(t, err)
	if s.State != Installed || names(s.Upstreams) != "192.0.2.1 192.0.2.2" || s.UpstreamsFrom != "/run/resolvconf/interface" {
		t.Errorf("%s, upstreams %v of %s", s.State, s.Upstreams, s.UpstreamsFrom)
	}
	_, err = p.Restore(t.Context(), false)
	must(t, err)
	if diff := cmp.Diff([]string{"resolvconf -a lo.meibo nameserver 127.0.0.1", "resolvconf -d lo.meibo"}, p.ran); diff != "" {
		t.Error(diff)
	}
	same(t, before, pictured(t, p.Root))
}

func TestInstall_GoesBackByItself(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(p *played)
		want  string
	}{
		{"the owner's program fails", func(p *played) { p.fails["systemctl"] = errors.New("unit is masked") }, "unit is masked"},
		{"names don't resolve after it", func(p *played) {
			n := 0
			p.Check = func(context.Context, netip.AddrPort, string) error {
				if n++; n > 1 {
					return errors.New("timeout")
				}
				return nil
			}
		}, "timeout\neverything is as it was"},
		{"somebody writes it at once", func(p *played) {
			n := 0
			p.Check = func(context.Context, netip.AddrPort, string) error {
				if n++; n == 2 {
					p.overwrite(t, "nameserver 192.0.2.3\n")
					return errors.New("cut")
				}
				return nil
			}
		}, "/etc/resolv.conf names 192.0.2.3 first after the change, not 127.0.0.1\neverything is as it was"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*settleLook)
			defer cancel()
			p := play(t, resolvedTree)
			before := pictured(t, p.Root)
			tc.spoil(p)
			_, err := p.Install(ctx, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			if p.fails["systemctl"] != nil {
				if !strings.Contains(err.Error(), "could not be taken back whole") {
					t.Errorf("it does not say that the program failed again: %v", err)
				}
				delete(p.fails, "systemctl")
				_, err := p.Restore(t.Context(), false)
				must(t, err)
			}
			same(t, before, pictured(t, p.Root))
		})
	}
}

func TestInstall_RefusesWithWhatToDo(t *testing.T) {
	down := errors.New("connection refused")
	for _, tc := range []struct {
		name  string
		files map[string]string
		check error
		only  string
		want  string
	}{
		{"meibo does not answer", map[string]string{"/etc/resolv.conf": uplink}, down, "", "nothing was changed, as meibo does not resolve names for this host yet: connection refused"},
		{"only .consul without systemd-resolved", map[string]string{"/etc/resolv.conf": uplink}, nil, "consul", "only systemd-resolved can ask meibo for consul alone"},
		{"only .consul without an upstream", with(resolvedTree, resolvedFile, "nameserver 127.0.0.1\n"), nil, "consul", "would go round between systemd-resolved and meibo"},
		{"a folder in its place", map[string]string{"/etc/resolv.conf/x": ""}, nil, "", "/etc/resolv.conf is neither a file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := play(t, tc.files)
			before := pictured(t, p.Root)
			p.Check = func(context.Context, netip.AddrPort, string) error { return tc.check }
			if _, err := p.Install(t.Context(), Options{Only: tc.only}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			same(t, before, pictured(t, p.Root))
		})
	}
}

func TestFind_NeverTheStubThatAsksUs(t *testing.T) {
	for _, tc := range []struct{ name, resolv, resolved, want string }{
		{"whole, by the file", "nameserver 127.0.0.1\n", "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "192.0.2.1"},
		{".consul alone", stub, "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "192.0.2.1"},
		{".consul alone, and no network", stub, "nameserver 127.0.0.1\n", ""},
		{"the stub beside others", "nameserver 127.0.0.54\nnameserver 192.0.2.4\n", "nameserver 127.0.0.1\n", "192.0.2.4"},
		{"it doesn't ask us", stub, "# no network\n", "127.0.0.53"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := plant(t, map[string]string{"/etc/resolv.conf": tc.resolv, resolvedFile: tc.resolved})
			up, err := Find(Config{Root: root, Self: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}})
			if names(up.Servers) != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%v, %v; want %s", up.Servers, err, tc.want)
			}
		})
	}
}

func TestStatusAndKeep_WhenOthersOverwriteIt(t *testing.T) {
	p := play(t, map[string]string{"/etc/resolv.conf": uplink})
	before := pictured(t, p.Root)
	_, err := p.Install(t.Context(), Options{})
	must(t, err)
	written := p.resolv(t)
	p.Check = func(context.Context, netip.AddrPort, string) error { return nil }
	for n := range maxReasserted {
		p.overwrite(t, fmt.Sprintf("nameserver 192.0.2.%d\n", 10+n))
		s, err := p.Status()
		must(t, err)
		if s.State != Overwritten || s.Next == "" {
			t.Errorf("status: %+v", s)
		}
		s, err = p.Keep(t.Context())
		must(t, err)
		if s.State != Installed || len(s.Reasserted) != n+1 || p.resolv(t) != written {
			t.Errorf("kept for the %d. time: %s, %d, %q", n+1, s.State, len(s.Reasserted), p.resolv(t))
		}
		// What the other wrote were newer servers.
		if want := fmt.Sprintf("192.0.2.%d", 10+n); names(s.Upstreams) != want {
			t.Errorf("upstreams %v, want %s", s.Upstreams, want)
		}
	}
	// Enough: it is left, and told, until the administrator says so.
	p.overwrite(t, "nameserver 192.0.2.20\n")
	if s, err := p.Keep(t.Context()); err == nil || !strings.Contains(err.Error(), "overwritten 4 times within an hour and is left as it is") || s.State != Overwritten {
		t.Errorf("%s, %v", s.State, err)
	}
	if p.resolv(t) != "nameserver 192.0.2.20\n" {
		t.Error("it fights on")
	}
	s, err := p.Install(t.Context(), Options{})
	must(t, err)
	if s.State != Installed || len(s.Reasserted) != 0 || p.resolv(t) != written {
		t.Errorf("installed anew: %+v", s)
	}
	// Times of long ago don't count.
	j, err := p.load(journalName)
	must(t, err)
	for range maxReasserted {
		j.Reasserted = append(j.Reasserted, time.Now().Add(-reassertedWithin-time.Second))
	}
	must(t, p.save(journalName, j))
	p.overwrite(t, "nameserver 192.0.2.21\n")
	_, err = p.Keep(t.Context())
	must(t, err)
	_, err = p.Restore(t.Context(), false)
	must(t, err)
	same(t, before, pictured(t, p.Root))
}

func TestKeep_NeverPointsAHostToADeadResolver(t *testing.T) {
	p := play(t, map[string]string{"/etc/resolv.conf": uplink})
	_, err := p.Install(t.Context(), Options{})
	must(t, err)
	p.overwrite(t, "nameserver 192.0.2.20\n")
	p.Check = func(context.Context, netip.AddrPort, string) error { return errors.New("down") }
	if _, err := p.Keep(t.Context()); err == nil || !strings.Contains(err.Error(), "down") || p.resolv(t) != "nameserver 192.0.2.20\n" {
		t.Errorf("%v, %s", err, p.resolv(t))
	}
}

func TestKeep_TakesBackWhatWasKilled(t *testing.T) {
	p := play(t, map[string]string{"/etc/resolv.conf": uplink})
	before := pictured(t, p.Root)
	q := &Host{Root: p.Root}
	dies(q, 12, func(h *Host) { _, _ = h.Install(t.Context(), Options{}) })
	if s, err := p.Status(); err != nil || s.State != Unfinished || !strings.Contains(s.Next, "restore") {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err := p.Keep(t.Context())
	must(t, err)
	same(t, before, pictured(t, p.Root))
}

func TestRestore_WhatOthersWroteSince(t *testing.T) {
	const theirs = "# theirs\nnameserver 192.0.2.33\n"
	for _, tc := range []struct {
		name, text string
		force      bool
		want, note string
	}{
		{"servers of theirs stay", theirs, false, theirs, "written by others since and stays"},
		{"unless forced", theirs, true, uplink, ""},
		{"what names us still does not", "nameserver 127.0.0.1\nsearch other\n", false, uplink, ""},
		{"what names nobody does not", "# empty\n", false, uplink, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := play(t, map[string]string{"/etc/resolv.conf": uplink})
			_, err := p.Install(t.Context(), Options{})
			must(t, err)
			p.overwrite(t, tc.text)
			s, err := p.Restore(t.Context(), tc.force)
			must(t, err)
			if p.resolv(t) != tc.want || tc.note != "" && !strings.Contains(strings.Join(s.Notes, "\n"), tc.note) {
				t.Errorf("%q, notes %q; want %q", p.resolv(t), s.Notes, tc.want)
			}
			if left := pictured(t, p.Root); len(left[kept(DefaultPath)].Data) > 0 {
				t.Error("what was kept is left behind")
			}
		})
	}
}

func TestBlocks_EditedByOthersSince(t *testing.T) {
	openresolv := map[string]string{"/etc/resolv.conf": "# Generated by resolvconf\n" + uplink, "/etc/resolvconf.conf": "# mine\n"}
	at := "/etc/resolvconf.conf"
	edit := func(p *played, f func(string) string) {
		text, err := p.tree().follow(at)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(p.Root, at), []byte(f(text)), 0o640))
	}
	t.Run("taken out of what they wrote", func(t *testing.T) {
		p := play(t, openresolv)
		_, err := p.Install(t.Context(), Options{})
		must(t, err)
		edit(p, func(s string) string { return s + "private_interfaces=wg0\n" })
		s, err := p.Restore(t.Context(), false)
		must(t, err)
		if text, _ := p.tree().follow(at); text != "# mine\nprivate_interfaces=wg0\n" || len(s.Notes) != 1 {
			t.Errorf("%q, notes %q", text, s.Notes)
		}
	})
	t.Run("put into it again", func(t *testing.T) {
		p := play(t, openresolv)
		_, err := p.Install(t.Context(), Options{})
		must(t, err)
		edit(p, func(string) string { return "# another\n" })
		p.overwrite(t, "nameserver 127.0.0.1\n")
		if s, _ := p.Status(); s.State != Overwritten {
			t.Errorf("state %s", s.State)
		}
		_, err = p.Install(t.Context(), Options{})
		must(t, err)
		if text, _ := p.tree().follow(at); text != "# another\n"+blockBegin+"name_servers=127.0.0.1\n"+blockEnd {
			t.Errorf("%q", text)
		}
		_, err = p.Restore(t.Context(), false)
		must(t, err)
		if text, _ := p.tree().follow(at); text != "# another\n" {
			t.Errorf("%q", text)
		}
	})
}

// A container has its runtime's resolver on loopback, and asks it through meibo.
func TestInstall_TheResolverOfAContainersRuntime(t *testing.T) {
	root := plant(t, map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.11\noptions ndots:0\n"})
	s, err := (&Host{Root: root}).Install(t.Context(), Options{})
	must(t, err)
	if names(s.Upstreams) != "127.0.0.11" || s.UpstreamsFrom != upstreamFile {
		t.Errorf("upstreams %v of %s", s.Upstreams, s.UpstreamsFrom)
	}
}

func TestDhclient_HookTellsOfServers(t *testing.T) {
	root := plant(t, map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\n", upstreamFile: "nameserver 192.0.2.1\n", hookFolder + "/eth0": "nameserver 192.0.2.5\n", hookFolder + "/.eth0": "nameserver 192.0.2.6\n"})
	up, err := Find(Config{Root: root, Self: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}})
	if err != nil || names(up.Servers) != "192.0.2.5" {
		t.Errorf("%v, %v", up, err)
	}
}

func TestPublish_WhatOthersCanReach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, Publish(path, Upstreams{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.11:53")}}))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file without servers: %v", err)
	}
	up := Upstreams{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:5353"), netip.MustParseAddrPort("127.0.0.1:53")}, Search: []string{"lan"}}
	must(t, Publish(path, up))
	const want = "# The name servers that meibo forwards to.\nnameserver 192.0.2.1\nsearch lan\n"
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	must(t, Publish(path, Upstreams{}))
	if again, _ := os.ReadFile(path); string(again) != want {
		t.Errorf("without a server it became %q", again)
	}
}
