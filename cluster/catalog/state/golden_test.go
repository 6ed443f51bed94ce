package state_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

var update = flag.Bool("update", false, "write the golden log and snapshot anew; those of a released version must not change")

const replayEnv = "STATE_TEST_REPLAY"

func TestMain(m *testing.M) {
	if path := os.Getenv(replayEnv); path != "" {
		fmt.Println(hashOfReplay(path))
		return
	}
	os.Exit(m.Run())
}

var (
	goldenLog      = filepath.Join("testdata", "v1.log")
	goldenSnapshot = filepath.Join("testdata", "v1.snapshot")
	// The same life with what came to version 1 later.
	laterLog      = filepath.Join("testdata", "v1-later.log")
	laterSnapshot = filepath.Join("testdata", "v1-later.snapshot")
)

func laterBodies() []catalog.Body {
	placed := registerService("alpha", "placed")
	placed.Service.Locality = &catalog.Locality{Region: "eu", Zone: "eu-1"}
	set := &catalog.SetAutopilot{CAS: true, Config: catalog.Autopilot{CleanupDeadServers: true, LastContactThreshold: time.Second, MaxTrailingLogs: 250, MinQuorum: 3}}
	return append(goldenBodies(), placed, set, set) // the second is refused: it was changed meanwhile
}

// goldenBodies is the life of a small cluster, with every kind of command.
func goldenBodies() []catalog.Body {
	external := registerNode("ext", "")
	external.Node.Agentless, external.Node.Meta = true, map[string]string{"external-node": "true", "b": "2", "a": "1"}
	full := registerService("alpha", "web", "v1", "blue")
	full.Service.Meta = map[string]string{"z": "1", "y": "2", "x": "3"}
	full.Service.TaggedAddresses = map[string]catalog.ServiceAddress{"wan": {Address: "198.51.100.1", Port: 80}, "lan": {Address: "192.0.2.1", Port: 8080}}
	full.Checks = []*catalog.Check{{Name: "web up", Status: catalog.Passing, ServiceID: "web", Type: "http", Output: "200 OK",
		Definition: catalog.Define(catalog.CheckDefinition{HTTP: "http://192.0.2.1/", Interval: "10s", Header: map[string][]string{"B": {"1"}, "A": {"2"}}})}}
	return []catalog.Body{
		&catalog.BeginHistory{ID: history1, Base: catalog.NextBase(epoch, 0)},
		registerNode("alpha", idA), registerNode("beta", idB), external, full,
		registerCheck("alpha", catalog.SerfHealth, "", catalog.Passing), registerCheck("beta", catalog.SerfHealth, "", catalog.Passing),
		registerService("beta", "Web", "v2"), registerService("ext", "db"), registerService("beta", "gone"),
		&catalog.MarkSynced{NodeID: idA, History: history1},
		registerCheck("beta", "disk", "", catalog.Warning), registerCheck("alpha", "web up", "web", catalog.Critical),
		&catalog.Deregister{Node: "beta", ServiceID: "gone"}, &catalog.Deregister{Node: "beta", CheckID: "disk"},
		&catalog.Deregister{Node: "stranger"}, &catalog.Forget{Node: "lost"},
		registerNode("alpha", idB), // refused: the name is taken
		registerNode("gamma", idB), // a new name for beta
	}
}

func writeGolden(t *testing.T, bodies []catalog.Body, goldenLog, goldenSnapshot string) {
	t.Helper()
	var out bytes.Buffer
	l := newLog(t)
	for i, b := range bodies {
		l.now = l.now.Add(time.Second)
		id := catalog.RequestID{Client: "host-1", Counter: uint64(i)}
		cmd, err := catalog.Command{Time: l.now, Request: id, Body: b}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d %s\n", 3*i+2, base64.StdEncoding.EncodeToString(cmd)) // Raft has entries of its own in between
		l.store.Apply(uint64(3*i+2), cmd)
	}
	if err := os.WriteFile(goldenLog, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenSnapshot, l.snapshot(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replay applies a log file to an empty store.
func replay(path string) (*state.Store, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := state.New()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		at, text, _ := strings.Cut(lines.Text(), " ")
		index, err := strconv.ParseUint(at, 10, 64)
		if err != nil {
			return nil, err
		}
		cmd, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		s.Apply(index, cmd)
	}
	return s, lines.Err()
}

func snapshotOf(s *state.Store) []byte {
	var b bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&b); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

func hashOfReplay(path string) string {
	s, err := replay(path)
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(snapshotOf(s))
	return hex.EncodeToString(sum[:])
}

// What version 1 wrote, as a log or as a snapshot, still gives one and the
// same state.
func TestGoldenLogAndSnapshot_OfVersion1Load(t *testing.T) {
	if *update {
		writeGolden(t, goldenBodies(), goldenLog, goldenSnapshot)
		writeGolden(t, laterBodies(), laterLog, laterSnapshot)
	}
	r := loadGolden(t, laterLog, laterSnapshot).Read()
	_, autopilot := r.Autopilot(nil)
	_, placed := r.ServiceInstances(nil, "placed")
	if autopilot == nil || autopilot.MinQuorum != 3 || len(placed) != 1 || placed[0].Service.Locality.Zone != "eu-1" {
		t.Errorf("got autopilot %+v, placed %+v", autopilot, placed)
	}
	r = loadGolden(t, goldenLog, goldenSnapshot).Read()
	_, services := r.Services(nil)
	_, stones := r.Tombstones(nil)
	_, n := r.NodeByID(nil, idB)
	if len(services) != 2 || len(stones) != 4 || n == nil || n.Node != "gamma" {
		t.Errorf("got services %v, %d tombstones, node %+v", services, len(stones), n)
	}
}

// loadGolden loads both and wants them equal.
func loadGolden(t *testing.T, log, snapshot string) *state.Store {
	t.Helper()
	replayed, err := replay(log)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	restored := state.New()
	if err := restored.Restore(f); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshotOf(replayed), snapshotOf(restored)) {
		t.Errorf("%s and %s give different states", log, snapshot)
	}
	return restored
}

// No map's order, clock or address of this process shows in the state.
func TestReplay_InAnotherProcessGivesEqualBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "long.log")
	writeLongLog(t, path)
	here := hashOfReplay(path)
	for range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), replayEnv+"="+path)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if there := strings.TrimSpace(string(out)); there != here {
			t.Errorf("got %s there, %s here", there, here)
		}
	}
}

func writeLongLog(t *testing.T, path string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	for i := range 600 {
		bodies := goldenBodies()
		b := bodies[rng.IntN(len(bodies))]
		if r, ok := b.(*catalog.Register); ok {
			r.Node.Node += strconv.Itoa(rng.IntN(20))
			r.Node.ID = ""
		}
		cmd, err := catalog.Command{Time: epoch.Add(time.Duration(i) * time.Second), Request: catalog.RequestID{Client: "c", Counter: uint64(i / 2)}, Body: b}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d %s\n", i+1, base64.StdEncoding.EncodeToString(cmd))
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A snapshot that isn't whole and right changes nothing.
func TestRestore_RefusesWhatIsDamagedAndKeepsTheState(t *testing.T) {
	whole, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t)
	l.must(registerService("mine", "web"))
	before := l.snapshot()
	try := func(what string, b []byte) {
		t.Helper()
		if err := l.store.Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: got no error", what)
		}
		if !bytes.Equal(before, l.snapshot()) {
			t.Fatalf("%s: the state changed", what)
		}
	}
	for i := 0; i < len(whole); i += 5 {
		try(fmt.Sprint("cut to ", i), whole[:i])
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		try(fmt.Sprint("bit flipped at ", i), b)
	}
	newer := bytes.Clone(whole)
	newer[len("meibo catalog\n")] = 2
	if err := l.store.Restore(bytes.NewReader(newer)); err == nil || !strings.Contains(err.Error(), "version 2 is unknown") {
		t.Errorf("newer version: got %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	whole, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(snapshotOf(state.New()))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := state.New()
		if err := s.Restore(bytes.NewReader(fixSum(in))); err != nil {
			return
		}
		once := snapshotOf(s)
		again := state.New()
		if err := again.Restore(bytes.NewReader(once)); err != nil {
			t.Fatalf("what was restored can't be: %v", err)
		}
		if !bytes.Equal(once, snapshotOf(again)) {
			t.Error("snapshots differ")
		}
		exact, others := queries(s)
		if len(exact)+len(others) == 0 {
			t.Error("no queries")
		}
		l := &log{t: t, store: s, index: s.Read().Applied(), now: epoch}
		for _, b := range goldenBodies() {
			if l.index < 1<<62 {
				_ = l.apply(b)
			}
		}
	})
}

// fixSum makes the checksum right, so that fuzzing gets behind it.
func fixSum(in []byte) []byte {
	if len(in) < 4 {
		return in
	}
	body := in[:len(in)-4]
	sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(bytes.Clone(body), sum)
}
