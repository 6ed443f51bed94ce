package agent

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// childDir names the folder in which this binary, run again by a test,
// registers services until it is killed.
const childDir = "AGENT_TEST_CHILD_DIR"

// kills is enough to hit each step of a write now and then, and few enough for
// slow disks: every registration waits for them six times.
const kills = 12

// runChild registers and deregisters, and prints each name once the call has
// been answered: "+name" or "-name", after "?name" when the call begins.
func runChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	first, _ := strconv.Atoi(os.Getenv(childDir + "_FIRST"))
	a, err := New(Config{DataDir: dir, Node: catalog.Node{Node: "n1"}})
	if err != nil {
		fmt.Println("!", err)
		return true
	}
	for i := first; ; i++ {
		id := fmt.Sprint("svc", i)
		fmt.Println("?" + id)
		c := definition.Check{Definition: check.Definition{TTL: time.Hour}}
		if err := a.AddService(definition.Service{Name: id, Checks: []definition.Check{c, c, c}}, SourceAPI, false); err != nil {
			fmt.Println("!", err)
			return true
		}
		if err := a.UpdateTTL("service:"+id+":1", "passing", "fine"); err != nil {
			fmt.Println("!", err)
			return true
		}
		fmt.Println("+" + id)
		if i%3 == 0 {
			fmt.Println("?" + id)
			a.RemoveService(id)
			fmt.Println("-" + id)
		}
	}
}

// What was answered is there after a kill, whenever it comes; what was not is
// there whole or not at all.
func TestKillMidWrite_Agent(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir, acknowledged, doubtful := t.TempDir(), map[string]bool{}, map[string]bool{}
	next := 0
	for range kills {
		next = killOnce(t, dir, next, acknowledged, doubtful)
	}
	a := mustNew(t, Config{DataDir: dir})
	services, checks := a.Services(), a.Checks()
	for id, there := range acknowledged {
		if _, ok := services[id]; ok != there && !doubtful[id] {
			t.Errorf("%s: found %v, acknowledged %v", id, ok, there)
		}
		if c := checks["service:"+id+":1"]; there && !doubtful[id] && (c == nil || c.Status != "passing") {
			t.Errorf("%s: got check %v", id, c)
		}
	}
	for id := range services {
		for n := 1; n <= 3; n++ {
			if checks[fmt.Sprintf("service:%s:%d", id, n)] == nil {
				t.Errorf("%s is there without check %d", id, n)
			}
		}
	}
	for id, c := range checks {
		if services[c.ServiceID] == nil {
			t.Errorf("%s is there without its service", id)
		}
	}
	for _, sub := range []string{servicesDir, checksDir, stateDir} {
		entries, err := os.ReadDir(dir + "/" + sub)
		must(t, err)
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.Contains(e.Name(), ".") }) {
			t.Errorf("%s holds damaged or half-written files: %v", sub, entries)
		}
	}
	t.Logf("%d acknowledged over %d kills", len(acknowledged), kills)
}

func killOnce(t *testing.T, dir string, first int, acknowledged, doubtful map[string]bool) (next int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprint(childDir, "_FIRST=", first))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	after := 1 + rand.IntN(60)
	asked := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		mark, id := lines.Text()[0], lines.Text()[1:]
		switch mark {
		case '?':
			asked = id
		case '+', '-':
			acknowledged[id], asked = mark == '+', ""
		default:
			t.Error(id)
		}
		if after--; after == 0 {
			cmd.Process.Kill() // lines on their way are still read
		}
		next, _ = strconv.Atoi(strings.TrimPrefix(id, "svc"))
	}
	cmd.Wait()
	if asked != "" {
		doubtful[asked] = true
	}
	return next + 1
}
