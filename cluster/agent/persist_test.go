package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

func TestRestart_BringsAllBackBeforeTheFirstRun(t *testing.T) {
	dir := t.TempDir()
	files := []definition.Service{{Name: "filed", Checks: []definition.Check{ttl(time.Hour)}}}
	a := mustNew(t, Config{DataDir: dir, Services: files})
	def := web()
	def.Address, def.Meta, def.EnableTagOverride = "192.0.2.9", map[string]string{"k": "v"}, true
	def.Weights = &catalog.Weights{Passing: 10, Warning: 2}
	no := false
	def.Checks = append(def.Checks, definition.Check{
		ID: "h2", Name: "two", Notes: "n", DeregisterCriticalServiceAfter: time.Hour,
		Definition: check.Definition{H2PING: "h:1", H2PingUseTLS: &no, Interval: 10 * time.Second, Timeout: time.Second, Header: nil, FailuresBeforeCritical: 3},
	})
	must(t, a.AddService(def, SourceAPI, false))
	must(t, a.AddCheck(definition.Check{ID: "odd/../id", Name: "node", Definition: check.Definition{TTL: time.Hour}}, SourceAPI))
	must(t, a.UpdateTTL("service:web1:1", "passing", "fine"))
	must(t, a.UpdateTTL("service:filed", "warning", "hm"))
	must(t, a.ServiceMaintenance("filed", true, "why"))
	must(t, a.NodeMaintenance(true, ""))

	b := mustNew(t, Config{DataDir: dir, Services: files})
	if diff := cmp.Diff(a.Own(), b.Own()); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(a.services["web1"].def.Token, b.services["web1"].def.Token); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(a.checks["h2"].def, b.checks["h2"].def); diff != "" {
		t.Errorf("definition (-before +after):\n%s", diff)
	}
	must(t, b.UpdateTTL("service:web1:1", "warning", ""))
	must(t, b.RemoveService("web1"))
	must(t, b.ServiceMaintenance("filed", false, ""))
	c := mustNew(t, Config{DataDir: dir, Services: files})
	wantStatuses(t, c, map[string]string{"_node_maintenance": "critical", "odd/../id": "critical", "service:filed": "warning"})
}

func TestRestart_StateOfATTLThatRanOutIsNotBroughtBack(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", "fine"))
	must(t, a.files.putState(file{name(stateDir, "service:web1"), []byte(`{"CheckID":"service:web1","Status":"passing","Expires":1000}`)}))
	wantStatuses(t, mustNew(t, Config{DataDir: dir}), map[string]string{"service:web1": "critical"})
}

func TestRestart_FileDefinitionTakesThePlaceOfAKeptOne(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	filed := web()
	filed.Port = 81
	b := mustNew(t, Config{DataDir: dir, Services: []definition.Service{filed}})
	if got := b.Services()["web1"].Port; got != 81 {
		t.Errorf("got port %d", got)
	}
	if c := mustNew(t, Config{DataDir: dir}); serviceIDs(c) != "" {
		t.Errorf("the kept one came back: %s", serviceIDs(c))
	}
}

func TestRestart_ScriptNoLongerAllowedStandsAsCritical(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir, EnableScriptChecks: true})
	must(t, a.AddService(definition.Service{Name: "web", Checks: []definition.Check{{Status: "passing", Definition: check.Definition{ScriptArgs: []string{"true"}, Interval: time.Hour}}}}, SourceAPI, false))
	b := mustNew(t, Config{DataDir: dir})
	c := b.Checks()["service:web"]
	if c == nil || c.Status != "critical" || !strings.Contains(c.Output, "Scripts are disabled") {
		t.Errorf("got %+v", c)
	}
}

// Consul's own data_dir is taken over as it is.
func TestRestart_ReadsWhatConsulKept(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		name(servicesDir, "web1"): `{"Token":"t","Service":{"ID":"web1","Service":"web","Tags":["a"],"Address":"192.0.2.5","TaggedAddresses":{"lan_ipv4":{"Address":"192.0.2.5","Port":80},"wan_ipv4":{"Address":"192.0.2.5","Port":80}},"Meta":null,"Port":80,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":0,"ModifyIndex":0},"Source":"remote","LocallyRegisteredAsSidecar":false}`,
		name(checksDir, "web-up"): `{"Check":{"Node":"n1","CheckID":"web-up","Name":"up","Status":"critical","Notes":"","Output":"","ServiceID":"web1","ServiceName":"web","ServiceTags":["a"],"Type":"http","Interval":"10s","Timeout":"0s","ExposedPort":0,"Definition":{"Interval":"0s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s"},"CreateIndex":0,"ModifyIndex":0},"ChkType":{"CheckID":"web-up","Name":"up","Status":"","Notes":"","ScriptArgs":null,"HTTP":"http://192.0.2.5/","H2PING":"","H2PingUseTLS":true,"Header":null,"Method":"","Body":"","DisableRedirects":false,"TCP":"","TCPUseTLS":false,"UDP":"","Interval":10000000000,"AliasNode":"","AliasService":"","DockerContainerID":"","Shell":"","GRPC":"","OSService":"","GRPCUseTLS":false,"TLSServerName":"","TLSSkipVerify":false,"Timeout":0,"TTL":0,"SuccessBeforePassing":0,"FailuresBeforeWarning":0,"FailuresBeforeCritical":0,"ProxyHTTP":"","ProxyGRPC":"","DeregisterCriticalServiceAfter":0,"OutputMaxSize":4096},"Token":"t","Source":"remote"}`,
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600))
	}
	a := mustNew(t, Config{DataDir: dir})
	if s, c := a.Services()["web1"], a.Checks()["web-up"]; s == nil || c == nil || c.ServiceName != "web" || a.checks["web-up"].def.Interval != 10*time.Second {
		t.Errorf("got %+v, %+v", s, c)
	}
}

func TestFiles_OnlyTheirOwnerReadsThem(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	for _, path := range []string{name(servicesDir, "web1"), name(checksDir, "service:web1"), name(stateDir, "service:web1")} {
		info, err := os.Stat(filepath.Join(dir, path))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v", path, info.Mode())
		}
	}
}

func TestDamage_IsSetAsideNamedAndNotFatal(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	for _, id := range []string{"a", "b", "c", "d"} {
		must(t, a.AddService(definition.Service{Name: id, Checks: []definition.Check{ttl(time.Hour)}}, SourceAPI, false))
		must(t, a.UpdateTTL("service:"+id, "passing", ""))
	}
	at := func(kind, id string) string { return filepath.Join(dir, name(kind, id)) }
	must(t, os.Truncate(at(servicesDir, "a"), 20))
	must(t, os.Rename(at(servicesDir, "b"), at(servicesDir, "other")))
	must(t, os.Truncate(at(checksDir, "service:c"), 0))
	must(t, os.WriteFile(at(stateDir, "service:d"), []byte(`{"Status":"fine"}`), 0o600))
	b := mustNew(t, Config{DataDir: dir})
	if got := serviceIDs(b); got != "c d" {
		t.Errorf("got services %s", got)
	}
	wantStatuses(t, b, map[string]string{"service:d": "critical"})
	for _, path := range []string{at(servicesDir, "a"), at(servicesDir, "other"), at(checksDir, "service:c"), at(stateDir, "service:d")} {
		if found, _ := filepath.Glob(path + ".damaged-*"); len(found) != 1 {
			t.Errorf("%s was not set aside", path)
		}
	}
}

func TestUnwritable_RegistrationIsRefusedWholeAndTheAgentGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	dir := filepath.Join(file, "data")
	a := mustNew(t, Config{DataDir: dir, Services: []definition.Service{{Name: "filed", Checks: []definition.Check{ttl(time.Hour)}}}})
	for what, err := range map[string]error{
		"service":     a.AddService(web(), SourceAPI, false),
		"check":       a.AddCheck(definition.Check{Name: "c", Definition: check.Definition{TTL: 1}}, SourceAPI),
		"maintenance": a.NodeMaintenance(true, ""),
	} {
		if err == nil || errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "cannot be kept in "+dir) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	must(t, a.UpdateTTL("service:filed", "passing", "")) // a heartbeat must not fail for it
	wantStatuses(t, a, map[string]string{"service:filed": "passing"})

	// Once it can be written, registrations work and what was there comes back.
	must(t, os.Remove(file))
	old := mustNew(t, Config{DataDir: dir})
	must(t, old.AddService(definition.Service{Name: "old"}, SourceAPI, false))
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.restore())
	if got := serviceIDs(a); got != "filed old web1" {
		t.Errorf("got %s", got)
	}
}

func TestRenameFails_NothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	def := web()
	def.Checks = []definition.Check{ttl(time.Hour), ttl(time.Hour)}
	must(t, a.AddService(def, SourceAPI, false))
	kept, err := os.ReadFile(filepath.Join(dir, name(checksDir, "service:web1:1")))
	must(t, err)
	// A folder in the place of the service's file lets every rename but the last work.
	must(t, os.Remove(filepath.Join(dir, name(servicesDir, "web1"))))
	must(t, os.MkdirAll(filepath.Join(dir, name(servicesDir, "web1"), "x"), 0o700))
	before := a.Own()
	def.Port = 81
	def.Checks = []definition.Check{{Definition: check.Definition{TTL: time.Minute}}, ttl(time.Hour), ttl(time.Hour)}
	if err := a.AddService(def, SourceAPI, false); err == nil {
		t.Fatal("registration was taken")
	}
	if diff := cmp.Diff(before, a.Own()); diff != "" {
		t.Errorf("memory changed:\n%s", diff)
	}
	now, err := os.ReadFile(filepath.Join(dir, name(checksDir, "service:web1:1")))
	must(t, err)
	if string(now) != string(kept) {
		t.Errorf("got %s, want %s", now, kept)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, checksDir, "*.tmp")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, name(checksDir, "service:web1:3"))); err == nil {
		t.Error("a check of the refused registration stayed on the disk")
	}
}

func TestDiskFull_Agent(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	before := a.Own()
	other := definition.Service{Name: "db", Meta: map[string]string{"k": strings.Repeat("v", 500)}, Checks: []definition.Check{ttl(time.Hour), ttl(time.Hour)}}
	if err := a.AddService(other, SourceAPI, false); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	if diff := cmp.Diff(before, a.Own()); diff != "" {
		t.Errorf("memory changed:\n%s", diff)
	}
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	wantStatuses(t, a, map[string]string{"service:web1": "passing"})
	must(t, os.Remove(ballast))
	must(t, a.AddService(other, SourceAPI, false))
	if got := serviceIDs(mustNew(t, Config{DataDir: dir})); got != "db web1" {
		t.Errorf("after a restart: %s", got)
	}
}

func FuzzKeptService(f *testing.F) {
	f.Add([]byte(`{"Token":"t","Service":{"ID":"web1","Service":"web","Port":80,"Weights":{"Passing":1,"Warning":1}},"Source":"remote"}`))
	f.Add([]byte(`{"Service":{"ID":"a","Service":"b","TaggedAddresses":{"lan":{"Address":"::","Port":-1}}}}`))
	f.Add([]byte(`{}`))
	a := mustNew(f, Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		def, err := decodeService(data)
		if err != nil {
			return
		}
		if def, err = a.normalizeService(def); err != nil {
			return
		}
		s := &service{def: def, source: SourceAPI, record: def.Record("n1")}
		out, err := encodeService(s)
		must(t, err)
		again, err := decodeService(out.data)
		must(t, err)
		again.Checks = def.Checks
		if again, err = a.normalizeService(again); err != nil {
			t.Fatalf("kept service is refused when read: %v", err)
		}
		if again.ID != def.ID || again.Name != def.Name || again.Port != def.Port || again.Token != def.Token {
			t.Errorf("got %+v, want %+v", again, def)
		}
	})
}

func FuzzKeptCheck(f *testing.F) {
	f.Add([]byte(`{"Check":{"CheckID":"c","Name":"c","Status":"critical"},"ChkType":{"TTL":1000000000},"Token":"t"}`))
	f.Add([]byte(`{"Check":{"CheckID":"_node_maintenance"},"ChkType":null}`))
	f.Add([]byte(`{"Check":{"CheckID":"c","Name":"c"},"ChkType":{"HTTP":"http://h/","Interval":1,"Header":{"a":["b"]}}}`))
	a := mustNew(f, Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		def, err := decodeCheck(data)
		if err != nil || isMaintenance(def.ID) {
			return
		}
		if def, err = a.normalizeCheck(def); err != nil {
			return
		}
		c := &checkState{def: def, source: SourceAPI, record: newRecord("n1", def, nil)}
		out, err := encodeCheck(c)
		must(t, err)
		again, err := decodeCheck(out.data)
		must(t, err)
		if again.Kind() != def.Kind() || again.Interval != def.Interval || again.TTL != def.TTL {
			t.Errorf("got %+v, want %+v", again, def)
		}
	})
}

func FuzzKeptState(f *testing.F) {
	f.Add([]byte(`{"CheckID":"c","Status":"passing","Output":"o","Expires":1700000000}`))
	f.Add([]byte(`{"Status":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := decodeState(data); err == nil && !validStatus(s.Status) {
			t.Errorf("took %+v", s)
		}
	})
}

func TestRestart_ForgetsTheStatesOfChecksThatWent(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir, Services: []definition.Service{web(), {Name: "stays", Checks: []definition.Check{ttl(time.Hour)}}}})
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	must(t, a.UpdateTTL("service:stays", "passing", ""))
	b := mustNew(t, Config{DataDir: dir, Services: []definition.Service{{Name: "stays", Checks: []definition.Check{ttl(time.Hour)}}}})
	wantStatuses(t, b, map[string]string{"service:stays": "passing"})
	if states, _ := b.files.list(stateDir); len(states) != 1 {
		t.Errorf("got states %v", states)
	}
}

// A file's check of a service that the API registered starts as it did before: Consul
// too brings kept services back before it looks at the checks of files.
func TestRestart_AFilesCheckOfAKeptService(t *testing.T) {
	dir := t.TempDir()
	filed := []definition.Check{{Name: "filed", ServiceID: "web1", Definition: check.Definition{TTL: time.Hour}}}
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.Reload(nil, filed))
	must(t, a.UpdateTTL("filed", "passing", "fine"))

	kept, err := Kept(dir)
	must(t, err)
	if !kept["web1"] || len(kept) != 1 {
		t.Errorf("kept: %v", kept)
	}
	b := mustNew(t, Config{DataDir: dir, Checks: filed})
	if got := b.Checks()["filed"]; got == nil || got.Status != "passing" || got.ServiceName != "web" || len(b.LeftOut()) != 0 {
		t.Errorf("got %+v, left out %v", got, b.LeftOut())
	}
	// What was kept of the check itself gives way to the file.
	must(t, b.RemoveCheck("filed"))
	must(t, b.AddCheck(filed[0], SourceAPI))
	c := mustNew(t, Config{DataDir: dir, Checks: filed})
	if got := c.checks["filed"]; got == nil || got.source != SourceFile {
		t.Errorf("got %+v", got)
	}
	// Damaged since: the check alone is left out.
	must(t, os.Truncate(filepath.Join(dir, name(servicesDir, "web1")), 10))
	if kept, err := Kept(dir); err != nil || len(kept) != 0 {
		t.Errorf("kept: %v, %v", kept, err)
	}
	d := mustNew(t, Config{DataDir: dir, Services: []definition.Service{{Name: "other"}}, Checks: filed})
	if left := d.LeftOut(); serviceIDs(d) != "other" || len(left) != 1 || left[0].ID != "filed" {
		t.Errorf("services %s, left out %v", serviceIDs(d), left)
	}
}

// While nobody knows what the data directory holds, a check may yet find its service.
func TestRestart_AFilesCheckWaitsForADataDirThatCantBeRead(t *testing.T) {
	dir := t.TempDir()
	must(t, mustNew(t, Config{DataDir: dir}).AddService(web(), SourceAPI, false))
	services := filepath.Join(dir, servicesDir)
	must(t, os.Rename(services, services+".away"))
	must(t, os.WriteFile(services, nil, 0o600)) // no folder: it can't be listed
	if _, err := Kept(dir); err == nil {
		t.Error("what can't be read counts as nothing")
	}
	a := mustNew(t, Config{DataDir: dir, Services: []definition.Service{{Name: "own"}}, Checks: []definition.Check{
		{Name: "of web1", ServiceID: "web1", Definition: check.Definition{TTL: time.Hour}},
		{Name: "of own", ServiceID: "own", Definition: check.Definition{TTL: time.Hour}},
	}})
	wantStatuses(t, a, map[string]string{"of own": "critical"})
	if left := a.LeftOut(); len(left) != 1 || left[0].ID != "of web1" {
		t.Errorf("left out %v", left)
	}
	must(t, os.Remove(services))
	must(t, os.Rename(services+".away", services))
	must(t, a.restore())
	wantStatuses(t, a, map[string]string{"of own": "critical", "of web1": "critical", "service:web1": "critical"})
	if left := a.LeftOut(); len(left) != 0 {
		t.Errorf("left out %v", left)
	}
}

func TestKept_OfAFolderThatIsNotThereIsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if kept, err := Kept(dir); err != nil || len(kept) != 0 {
		t.Errorf("got %v, %v", kept, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it was made")
	}
}

// What the API added to a service of a file is not forgotten because the file has a fault
// for a while.
func TestRestart_KeptChecksWaitForAServiceThatIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	hour := check.Definition{TTL: time.Hour}
	good := []definition.Service{{Name: "web", Checks: []definition.Check{ttl(time.Hour)}}}
	a := mustNew(t, Config{DataDir: dir, Services: good})
	must(t, a.AddCheck(definition.Check{Name: "added", ServiceID: "web", Definition: hour}, SourceAPI))
	must(t, a.ServiceMaintenance("web", true, "why"))
	must(t, a.UpdateTTL("service:web", "passing", "fine"))

	for name, cfg := range map[string]Config{
		"found by the agent":  {DataDir: dir, Services: []definition.Service{{Name: "web", Address: "0.0.0.0"}}},
		"found by its caller": {DataDir: dir, Absent: []string{"web"}},
	} {
		b := mustNew(t, cfg)
		if got := serviceIDs(b); got != "" {
			t.Errorf("%s: services %s", name, got)
		}
		wantStatuses(t, b, map[string]string{})
		must(t, b.Reload(good, nil))
		wantStatuses(t, b, map[string]string{"added": "critical", "service:web": "passing", "_service_maintenance:web": "critical"})
	}
	// One that is gone for good takes its checks along.
	b := mustNew(t, Config{DataDir: dir, Absent: []string{"web"}})
	must(t, b.Reload(nil, nil))
	wantStatuses(t, mustNew(t, Config{DataDir: dir, Services: []definition.Service{{Name: "web"}}}), map[string]string{})
}

func TestRestore_LocalityComesBackAndIsMadeKnown(t *testing.T) {
	dir := t.TempDir()
	def := definition.Service{Name: "db", Locality: &catalog.Locality{Region: "eu", Zone: "eu-1"}}
	must(t, mustNew(t, Config{DataDir: dir}).AddService(def, SourceAPI, false))
	a := mustNew(t, Config{DataDir: dir})
	own := a.Services()["db"]
	if own == nil || own.Locality == nil || *own.Locality != *def.Locality {
		t.Fatalf("got %+v", own)
	}
	if catalog.SameService(own, &catalog.Service{ID: "db", Service: "db", Weights: own.Weights}) {
		t.Error("a catalog that lacks it is as the agent has it")
	}
	err := a.AddService(definition.Service{Name: "x", Locality: &catalog.Locality{Zone: "eu-1"}}, SourceAPI, false)
	if err == nil || !strings.Contains(err.Error(), "zone cannot be set without region") {
		t.Errorf("got %v", err)
	}
}

// A file that this user may not read is no damage: it stays for whoever may.
func TestSetAside_LeavesWhatMayNotBeRead(t *testing.T) {
	s := &store{dir: t.TempDir(), logger: slog.New(slog.DiscardHandler)}
	for _, why := range []error{fs.ErrPermission, errors.New("no JSON")} {
		path := filepath.Join(s.dir, "x")
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.setAside("x", why)
		if _, err := os.Stat(path); (err == nil) != errors.Is(why, fs.ErrPermission) {
			t.Errorf("%v: is it there? %v", why, err)
		}
	}
}
