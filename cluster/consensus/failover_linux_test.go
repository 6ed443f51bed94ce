package consensus

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

var leaderKills = flag.Int("leaderkills", 3, "how often the leader of three processes is killed; from 20 on the bars hold")

// serverList is the variable that tells a helper "ID=ADDR,…", its own first.
const serverList = "CONSENSUS_TEST_SERVERS"

// helpServe is one of three servers. While it leads it writes without end,
// and prints "wrote"; while it follows somebody it prints "follows".
func helpServe(dir string) error {
	var list []Server
	for entry := range strings.SplitSeq(os.Getenv(serverList), ",") {
		id, addr, _ := strings.Cut(entry, "=")
		list = append(list, Server{ID: id, Addr: addr, Voter: true})
	}
	l, err := net.Listen("tcp", list[0].Addr)
	if err != nil {
		return err
	}
	r, err := New(Config{StateMachine: new(forgetful), ID: list[0].ID, Addr: list[0].Addr, Dir: dir, Stream: tcp{l}, Bootstrap: list[0].ID == "a", Servers: list})
	if err != nil {
		return err
	}
	go func() {
		for {
			lead, changed := r.Leadership()
			switch {
			case !lead.Leading:
				if lead.LeaderID != "" {
					fmt.Println("follows")
				}
				<-changed
			default:
				if _, _, err := r.Apply(context.Background(), []byte("x")); err == nil {
					fmt.Println("wrote")
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return r.Run(context.Background())
}

// forgetful is a list that keeps nothing.
type forgetful struct{ list }

func (*forgetful) Apply(uint64, []byte) any { return nil }

// line is what a server printed, and when.
type line struct {
	from int
	text string
	at   time.Time
}

func TestKilledLeader_WritesAreBackSoon(t *testing.T) {
	var addrs, dirs []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs, dirs = append(addrs, l.Addr().String()), append(dirs, t.TempDir())
		_ = l.Close()
	}
	said := make(chan line, 1024)
	procs := make([]*exec.Cmd, 3)
	start := func(i int) {
		var names []string
		for k := range 3 {
			n := (i + k) % 3
			names = append(names, fmt.Sprintf("%c=%s", 'a'+n, addrs[n]))
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperMode+"=serve", helperDir+"="+dirs[i], serverList+"="+strings.Join(names, ","))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs[i] = cmd
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				said <- line{i, s.Text(), time.Now()}
			}
			said <- line{i, "end", time.Now()}
		}()
	}
	for i := range procs {
		start(i)
	}
	running := 3
	stop := func(i int) {
		_ = procs[i].Process.Kill()
		for l := range said {
			if l.text == "end" {
				running--
			}
			if l.text == "end" && l.from == i {
				break
			}
		}
		_ = procs[i].Wait()
	}
	defer func() {
		for i := range procs {
			_ = procs[i].Process.Kill()
		}
		for ; running > 0; running-- {
			for l := range said {
				if l.text == "end" {
					break
				}
			}
		}
	}()
	wait := func(want func(line) bool) line {
		t.Helper()
		late := time.After(30 * time.Second)
		for {
			select {
			case l := <-said:
				if want(l) {
					return l
				}
				if strings.HasPrefix(l.text, "error") || l.text == "end" {
					t.Fatalf("server %d: %s", l.from, l.text)
				}
			case <-late:
				t.Fatal("nothing for 30 s")
			}
		}
	}
	seen := map[int]bool{}
	wait(func(l line) bool { seen[l.from] = true; return len(seen) == 3 }) // one writes, two follow
	var gaps []time.Duration
	for range *leaderKills {
		for range 50 {
			wait(func(l line) bool { return l.text == "wrote" })
		}
		leader := wait(func(l line) bool { return l.text == "wrote" }).from
		at := time.Now()
		stop(leader)
		next := wait(func(l line) bool { return l.text == "wrote" && l.from != leader })
		gaps = append(gaps, next.at.Sub(at))
		start(leader)
		running++
		wait(func(l line) bool { return l.from == leader && l.text == "follows" })
	}
	slices.Sort(gaps)
	p95, most := gaps[(len(gaps)*95-1)/100], gaps[len(gaps)-1]
	t.Logf("%d kills: a write again after p50 %v, p95 %v, at most %v", len(gaps), gaps[len(gaps)/2], p95, most)
	switch {
	case len(gaps) >= 20 && (p95 > 800*time.Millisecond || most > 1200*time.Millisecond):
		t.Error("the bars are p95 800 ms and at most 1.2 s")
	case most > 10*time.Second:
		t.Error("that is far too late")
	}
}
