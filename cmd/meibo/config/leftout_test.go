package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// Each of these is a fault inside one definition: that one is left out, named with file
// and line, and the three sound ones around it stay.
func TestLoad_LeavesOutADefinitionWithAFault(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, tt := range map[string]struct{ hcl, what, want string }{
		"any address":              {`service { name = "x" address = "0.0.0.0" port = 5000 }`, `service "x"`, `key "service.address"`},
		"any address, IPv6":        {`service { name = "x" address = "::" }`, `service "x"`, `key "service.address"`},
		"port":                     {`service { name = "x" id = "x1" port = 70000 }`, `service "x1"`, `key "service.port"`},
		"negative port":            {`service { name = "x" port = -1 }`, `service "x"`, `key "service.port"`},
		"tagged address":           {`service { name = "x" tagged_addresses { lan { address = "0.0.0.0" } } }`, `service "x"`, `key "service.tagged_addresses.lan.address"`},
		"tagged addresses":         {`service { name = "x" tagged_addresses = "lan" }`, `service "x"`, `key "service.tagged_addresses"`},
		"weights":                  {`service { name = "x" weights { passing = 0 } }`, `service "x"`, `key "service.weights.passing"`},
		"meta":                     {`service { name = "x" meta { "a b" = "c" } }`, `service "x"`, `key "service.meta"`},
		"socket and port":          {`service { name = "x" port = 1 socket_path = "/x" }`, `service "x"`, `SocketPath`},
		"proxy":                    {`service { name = "x" proxy { destination_service_name = "w" } }`, `service "x"`, `key "service.proxy"`},
		"kind of the mesh":         {`service { name = "x" kind = "connect-proxy" }`, `service "x"`, `kind "connect-proxy" is of Connect`},
		"unknown key":              {`service { name = "x" prot = 1 }`, `service "x"`, `did you mean "service.port"?`},
		"unknown nested key":       {`service { name = "x" weights { pasing = 1 } }`, `service "x"`, `key "service.weights.pasing"`},
		"unknown key of a check":   {`service { name = "x" check { ttl = "1m" statuss = "passing" } }`, `service "x"`, `key "service.check.statuss"`},
		"type":                     {`service { name = "x" tags = "a" }`, `service "x"`, `key "service.tags"`},
		"type of a block":          {`service { name = "x" check = "tcp" }`, `service "x"`, `key "service.checks"`},
		"no name":                  {`service { port = 1 }`, `service`, `key "service.name"`},
		"name of the servers":      {`service { name = "x" id = "consul" }`, `service "consul"`, `kept for the servers`},
		"label":                    {`service "x" { port = 1 }`, `service "x"`, `expected a block without a label`},
		"the same fault twice":     {`service { name = "x" port = 70000 port = 70000 }`, `service "x"`, `key "service.port"`},
		"no block":                 {`service = "x"`, `service`, `expected a block or a list of blocks`},
		"no block in a list":       {`services = [{ name = "w" }, 5]`, `service`, `got the number 5`},
		"control character":        {"service { name = \"x\\u0007\" }", `service "x` + "\a" + `"`, `control characters`},
		"long name":                {`service { name = "` + long + `" }`, `service "` + long[:80], `Invalid`},
		"check without interval":   {`service { name = "x" check { http = "http://h/" } }`, `service "x"`, `key "service.check.interval"`},
		"interval":                 {`check { name = "x" tcp = "h:1" interval = "often" }`, `check "x"`, `key "check.interval"`},
		"number for an interval":   {`check { name = "x" tcp = "h:1" interval = 10 }`, `check "x"`, `did you mean "10s"?`},
		"negative timeout":         {`check { name = "x" tcp = "h:1" interval = "10s" timeout = "-1s" }`, `check "x"`, `key "check.timeout"`},
		"interval and ttl":         {`check { name = "x" ttl = "1m" interval = "10s" }`, `check "x"`, `key "check.ttl"`},
		"target":                   {`check { name = "x" tcp = "h" interval = "10s" }`, `check "x"`, `key "check"`},
		"nothing to check":         {`check { name = "x" interval = "10s" }`, `check "x"`, `nothing to check`},
		"check without name":       {`check { ttl = "1m" }`, `check`, `needs a name`},
		"status":                   {`check { name = "x" ttl = "1m" status = "ok" }`, `check "x"`, `key "check.status"`},
		"script":                   {`check { name = "x" args = ["true"] interval = "10s" }`, `check "x"`, `enable_local_script_checks`},
		"script of a service":      {`service { name = "x" check { args = ["true"] interval = "10s" } }`, `service "x"`, `enable_local_script_checks`},
		"unknown service":          {`check { name = "x" ttl = "1m" service_id = "nobody" }`, `check "x"`, `ServiceID "nobody" does not exist`},
		"two checks of one ID":     {`service { name = "x" check { id = "c" ttl = "1m" } check { id = "c" ttl = "1m" } }`, `service "x"`, `two checks of the ID "c"`},
		"kept ID":                  {`check { name = "x" id = "serfHealth" ttl = "1m" }`, `check "serfHealth"`, `kept for meibo itself`},
		"threshold":                {`check { name = "x" ttl = "1m" failures_before_critical = -1 }`, `check "x"`, `key "check.failures_before_critical"`},
		"bad one after a good one": {`service { name = "a" port = 70000 }`, `service "a"`, `key "service.port"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "1.hcl", `service { name = "a" port = 1 }`, "2.hcl", "\n"+tt.hcl, "3.hcl", `services = [{ name = "b" }] check { name = "c" service_id = "b" ttl = "1m" }`)
			c, _, err := Load(Sources{Paths: []string{dir}, Host: host, Partial: true})
			if err != nil {
				t.Fatalf("refused:\n%v", err)
			}
			var names []string
			for _, s := range c.Agent.Services {
				names = append(names, s.Name)
			}
			if got := strings.Join(names, " "); got != "a b" && got != "a w b" || len(c.Agent.Checks) != 1 || c.Agent.Services[0].Port != 1 {
				t.Errorf("services %s, checks %v", got, c.Agent.Checks)
			}
			if len(c.Agent.LeftOut) != 1 {
				t.Fatalf("left out: %v", c.Agent.LeftOut)
			}
			left := c.Agent.LeftOut[0]
			if why := left.Why(); !strings.HasPrefix(left.What(), tt.what) || !strings.Contains(why, dir+"/2.hcl:2: ") || !strings.Contains(why, tt.want) || strings.Contains(why, "\n") {
				t.Errorf("%s is left out: %s", left.What(), why)
			}
			report, err := Validate([]string{dir}, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(report.LeftOut) != 1 {
				t.Errorf("validate says %v", err)
			}
		})
	}
}

// A service keeps its own name where Connect isn't built.
func TestLoad_KeepsAServiceWithoutItsSidecar(t *testing.T) {
	for connect, warns := range map[string]bool{
		`sidecar_service {}`: true, `sidecar_service { port = 20000 }`: true, `native = true`: true, `native = false`: false,
	} {
		t.Run(connect, func(t *testing.T) {
			dir := write(t, "1.hcl", "service {\n name = \"x\"\n port = 80\n connect { "+connect+" }\n}")
			c, warnings, err := Load(Sources{Paths: []string{dir}, Host: host, Partial: true})
			if err != nil || len(c.Agent.LeftOut) != 0 || len(c.Agent.Services) != 1 || c.Agent.Services[0].Port != 80 {
				t.Fatalf("services %v, left out %v, %v", c.Agent.Services, c.Agent.LeftOut, err)
			}
			var got bool
			for _, w := range warnings {
				got = got || !w.Serious && w.File == filepath.Join(dir, "1.hcl") && w.Line == 4 && strings.Contains(w.Text, "without a sidecar")
			}
			if got != warns {
				t.Errorf("warnings %v", warnings)
			}
		})
	}
}

// What refers to a definition that is left out is left out with it, and says so.
func TestLoad_LeavesOutTheChecksOfAServiceThatIsLeftOut(t *testing.T) {
	dir := write(t, "a.hcl", `
service { name = "x" port = 70000 }
service { name = "y" id = "consul" }
check { name = "of x" service_id = "x" ttl = "1m" }
check { name = "of y" service_id = "consul" ttl = "1m" }`)
	c, _, err := Load(Sources{Paths: []string{dir}, Host: host, Partial: true})
	if err != nil || len(c.Agent.LeftOut) != 4 {
		t.Fatalf("got %v, %v", c.Agent.LeftOut, err)
	}
	for _, l := range c.Agent.LeftOut[2:] {
		if want := `service "` + l.ServiceID + `", which it is a check of, is left out`; l.ServiceID == "" || !strings.Contains(l.Why(), want) {
			t.Errorf("%s: %s", l.What(), l.Why())
		}
	}
}

func TestLoad_AFaultElsewhereRefusesAndNamesDefinitionsToo(t *testing.T) {
	_, _, err := Load(Sources{Fragments: []string{"service { name = \"x\" port = 70000 }\nports { dns = 70000 }"}, Host: host, Partial: true})
	if err == nil || !strings.Contains(err.Error(), `"service.port"`) || !strings.Contains(err.Error(), `"ports.dns"`) {
		t.Errorf("got %v", err)
	}
}

func TestLoad_ChecksOfServicesThatTheAPIRegistered(t *testing.T) {
	data := t.TempDir()
	a, err := agent.New(agent.Config{DataDir: data, Node: catalog.Node{Node: "host1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.AddService(definition.Service{Name: "web", ID: "web1", Checks: []definition.Check{{Definition: check.Definition{TTL: time.Minute}}}}, agent.SourceAPI, false); err != nil {
		t.Fatal(err)
	}
	const file = `check { name = "x" service_id = "web1" ttl = "1m" }`
	dir := write(t, "a.hcl", file+` data_dir = "`+data+`"`)
	if c, warnings, err := Load(Sources{Paths: []string{dir}, Host: host}); err != nil || len(c.Agent.Checks) != 1 || len(warnings) > 0 {
		t.Errorf("kept in data_dir: %v, %v", warnings, err)
	}
	if c, _, err := Load(Sources{Fragments: []string{file}, Host: host, Dev: true, Registered: a.Registered}); err != nil || len(c.Agent.Checks) != 1 {
		t.Errorf("registered with the daemon that reloads: %v", err)
	}
	if c, _, err := Load(Sources{Fragments: []string{file}, Host: host, Dev: true}); err != nil || len(c.Agent.LeftOut) != 1 {
		t.Errorf("not registered: %v", err)
	}
	// Whoever can't read data_dir can't know, and says so.
	services := filepath.Join(data, "services")
	if err := os.RemoveAll(services); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(services, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Load(Sources{Paths: []string{dir}, Host: host})
	if err != nil || len(c.Agent.LeftOut) != 0 || len(warnings) != 1 || !strings.Contains(warnings[0].String(), `key "data_dir": cannot be read`) {
		t.Errorf("unreadable: %v, %v", warnings, err)
	}
	for _, e := range []string{"services"} {
		if info, err := os.Stat(filepath.Join(data, e)); err != nil || info.IsDir() {
			t.Errorf("reading changed %s", e)
		}
	}
}

func TestLoad_PassesOverFilesThatSayNothing(t *testing.T) {
	dir := write(t, "1.json", "", "2.json", " \n\t\r\n", "3.json", "{}", "4.json", "null\n", "5.json", "\ufeff", "6.hcl", "", "7.hcl", "\n\n", "8.hcl", "# nothing\n// here\n/* yet */\n",
		"9.json", "\ufeff{\"datacenter\": \"dc9\"}", "a.hcl", "\ufeffdomain = \"x\"")
	c, warnings, err := Load(Sources{Paths: []string{dir}, Host: host, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Datacenter != "dc9" || c.Zone.Domain != "x." {
		t.Errorf("datacenter %q, domain %q", c.Node.Datacenter, c.Zone.Domain)
	}
	if got := strings.Count(said(warnings), ": empty, and passed over\n"); got != 5 {
		t.Errorf("%d files are named as empty:\n%s", got, said(warnings))
	}
}

func TestLoad_NamesAFileOfUnknownFormat(t *testing.T) {
	dir := write(t, "meibo.conf", `domain = "x"`)
	file := filepath.Join(dir, "meibo.conf")
	for _, path := range []string{dir, file} {
		_, warnings, err := Load(Sources{Paths: []string{path}, Host: host, Partial: true})
		if err != nil || len(warnings) != 1 || warnings[0].Serious != (path == file) ||
			warnings[0].String() != file+": skipped: the name does not end in .hcl or .json (-config-format hcl, or json, reads every file as that, whatever its name)" {
			t.Errorf("%s: %v, %v", path, warnings, err)
		}
	}
	// It is named when something else is wrong, too.
	if _, warnings, err := Load(Sources{Paths: []string{file}, Host: host}); err == nil || len(warnings) != 1 {
		t.Errorf("got %v, %v", warnings, err)
	}
	if c, _, err := Load(Sources{Paths: []string{file}, Format: "hcl", Host: host, Partial: true}); err != nil || c.Zone.Domain != "x." {
		t.Errorf("-config-format hcl: %v", err)
	}
	if _, err := Validate([]string{file}, "yaml"); err == nil || err.Error() != `flag -config-format: expected one of hcl, json, got "yaml"` {
		t.Errorf("-config-format yaml: %v", err)
	}
}

func TestLoad_WarnsOfACheckThatTakesAnothersPlace(t *testing.T) {
	_, warnings, err := load(t, `
service { name = "a" check { id = "up" ttl = "1m" } }
service { name = "b" check { id = "up" ttl = "1m" } check { ttl = "1m" } }
check { id = "service:b:2" service_id = "a" ttl = "1m" }
check { name = "other" ttl = "1m" }`)
	if err != nil {
		t.Fatal(err)
	}
	want := `a.hcl:3: key "check": check "up" of service "b" takes the place of the one of service "a": give each an id of its own
a.hcl:4: key "check": check "service:b:2" of service "a" takes the place of the one of service "b": give each an id of its own
`
	if got := said(warnings); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
