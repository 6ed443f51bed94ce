package packaging

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// image is a root as the Containerfile makes it from scratch, and who runs what there. There is no engine here: what it
// would do is done by hand, from what the file says.
type image struct {
	dir             string
	uid, gid        uint32
	entrypoint, cmd []string
}

func newImage(t *testing.T) image {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can change its root")
	}
	text, err := os.ReadFile("Containerfile")
	must(t, err)
	last := string(text[strings.LastIndex(string(text), "\nFROM scratch"):])
	i := image{dir: t.TempDir()}
	list := func(instruction string) (all []string) {
		m := regexp.MustCompile(`(?m)^` + instruction + ` (\[.*\])$`).FindStringSubmatch(last)
		if m == nil {
			t.Fatalf("no %s in the Containerfile", instruction)
		}
		must(t, yaml.Unmarshal([]byte(m[1]), &all))
		return all
	}
	i.entrypoint, i.cmd = list("ENTRYPOINT"), list("CMD")
	if _, err := fmt.Sscanf(regexp.MustCompile(`(?m)^USER (.*)$`).FindStringSubmatch(last)[1], "%d:%d", &i.uid, &i.gid); err != nil {
		t.Fatal(err)
	}
	binary, err := staticBinary()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(i.dir, "meibo"), binary, 0o755))
	must(t, os.Chmod(i.dir, 0o755))
	for _, d := range []string{"data", "tmp", "etc/meibo.d"} {
		must(t, os.MkdirAll(filepath.Join(i.dir, d), 0o755))
		must(t, os.Chown(filepath.Join(i.dir, d), int(i.uid), int(i.gid)))
	}
	return i
}

// staticBinary is the program as the Containerfile builds it.
var staticBinary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "meibo-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-o", dir, "../cmd/meibo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "meibo"))
})

// chroot is where it is on every Debian, whatever PATH says.
const chroot = "/usr/sbin/chroot"

// run runs the entry point with args in a network namespace, as the image's user and with nothing but the image.
func (i image) run(t *testing.T, namespace string, args ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + namespace, "--", chroot, fmt.Sprintf("--userspec=%d:%d", i.uid, i.gid), i.dir}, append(slices.Clone(i.entrypoint), args...)...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%v does not end", args)
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", args, out.String())
		}
	})
}

// wire makes a network of these addresses, all on one bridge, and returns the namespace of each.
func wire(t *testing.T, addrs ...netip.Addr) map[netip.Addr]string {
	t.Helper()
	out := map[netip.Addr]string{}
	bridge := fmt.Sprintf("mc%d", os.Getpid()%100000)
	command(t, "ip", "netns", "add", bridge)
	t.Cleanup(func() { command(t, "ip", "netns", "del", bridge) })
	command(t, "ip", "-n", bridge, "link", "add", "br0", "type", "bridge")
	command(t, "ip", "-n", bridge, "link", "set", "br0", "up")
	for n, a := range addrs {
		ns := fmt.Sprintf("%sn%d", bridge, n)
		command(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { command(t, "ip", "netns", "del", ns) })
		command(t, "ip", "-n", bridge, "link", "add", fmt.Sprintf("p%d", n), "type", "veth", "peer", "name", "eth0", "netns", ns)
		command(t, "ip", "-n", bridge, "link", "set", fmt.Sprintf("p%d", n), "master", "br0", "up")
		command(t, "ip", "-n", ns, "link", "set", "lo", "up")
		command(t, "ip", "-n", ns, "link", "set", "eth0", "up")
		command(t, "ip", "-n", ns, "addr", "add", a.String()+"/24", "dev", "eth0")
		out[a] = ns
	}
	return out
}

// asks asks in a namespace until the answer has n records.
func asks(t *testing.T, namespace, server, name string, n int) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		self, err := os.Executable()
		must(t, err)
		cmd := exec.Command("nsenter", "--net=/run/netns/"+namespace, "--", self)
		cmd.Env = append(os.Environ(), "MEIBO_PACKAGING_ASK="+server+" "+name)
		out, err := cmd.CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == fmt.Sprint(n) {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("%s at %s: %v %s; want %d records", name, server, err, out, n)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestContainer_RunsAsTheImageSays: from scratch, as a user without rights.
func TestContainer_RunsAsTheImageSays(t *testing.T) {
	i := newImage(t)
	self := netip.MustParseAddr("10.89.53.99")
	ns := wire(t, self)[self]
	i.run(t, ns, i.cmd...)
	t.Logf("answers after %v", asks(t, ns, "127.0.0.1", "localhost", 1))
	asks(t, ns, self.String(), "localhost", 1)
}

// TestCompose_ClusterForms: the services of the compose file, each with its command, its address and the configuration.
func TestCompose_ClusterForms(t *testing.T) {
	text, err := os.ReadFile("examples/compose.yaml")
	must(t, err)
	var file struct {
		Configs  map[string]struct{ Content string }
		Services map[string]struct {
			Command  []string
			Networks map[string]struct {
				Address string `yaml:"ipv4_address"`
			}
			Configs []struct{ Source, Target string }
		}
	}
	must(t, yaml.Unmarshal(text, &file))
	var addrs []netip.Addr
	for _, s := range file.Services {
		addrs = append(addrs, netip.MustParseAddr(s.Networks["meibo"].Address))
	}
	spaces := wire(t, addrs...)
	var last string
	for name, s := range file.Services {
		i := newImage(t)
		for _, c := range s.Configs {
			content := regexp.MustCompile(`\$\{MEIBO_KEY[^}]*\}`).ReplaceAllString(file.Configs[c.Source].Content, "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w=")
			must(t, os.WriteFile(filepath.Join(i.dir, c.Target), []byte(content), 0o644))
		}
		ns := spaces[netip.MustParseAddr(s.Networks["meibo"].Address)]
		i.run(t, ns, s.Command...)
		if name == "agent1" {
			last = ns
		}
	}
	t.Logf("the servers are a service after %v", asks(t, last, "127.0.0.1", "consul.service.consul", 3))
	for _, agent := range []string{"agent1", "agent2"} {
		asks(t, last, "127.0.0.1", agent+".node.consul", 1)
	}
}

// TestKubernetes_ArgumentsAreTaken: what the DaemonSet runs is a command line and a configuration that the daemon takes.
func TestKubernetes_ArgumentsAreTaken(t *testing.T) {
	text, err := os.ReadFile("examples/kubernetes.yaml")
	must(t, err)
	var args []string
	config := ""
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	for {
		var doc struct {
			Kind       string
			StringData map[string]string `yaml:"stringData"`
			Spec       struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if decoder.Decode(&doc) != nil {
			break
		}
		switch doc.Kind {
		case "Secret":
			config = doc.StringData["cluster.hcl"]
		case "DaemonSet":
			args = doc.Spec.Template.Spec.Containers[0].Args
		}
	}
	if len(args) == 0 || config == "" {
		t.Fatal("the file has no DaemonSet, or no configuration")
	}
	i := newImage(t)
	node := netip.MustParseAddr("10.89.53.98")
	ns := wire(t, node)[node]
	must(t, os.WriteFile(filepath.Join(i.dir, "etc/meibo.d/cluster.hcl"), []byte(config), 0o644))
	for n := range args {
		args[n] = strings.NewReplacer("$(NODE)", "node1", "$(ADDRESS)", node.String()).Replace(args[n])
	}
	i.run(t, ns, args...)
	asks(t, ns, node.String(), "localhost", 1)
	asks(t, ns, "127.0.0.1", "localhost", 1)
}
