package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meibo/bench/netswitch"
)

// outWithin is within what time a host that dies is to be left out everywhere, among ten.
const outWithin = 5 * time.Second

// TestFleet_LeavesOutTheDead lets one host flap all the while that others die: by kill -9, by their cable, and one daemon
// that is back so soon that it never was dead.
func TestFleet_LeavesOutTheDead(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		f.start()
		w := newWitness(f)
		agents := f.agents()
		flaps, killed, unplugged, restarted := agents[0], agents[2], agents[3], agents[4]

		begin := w.mark()
		restarted.kill()
		f.client.soak(time.Second)
		restarted.up()
		eventually(t, "the restarted daemon answers", func() error { return f.client.exactOn(restarted) })
		t.Logf("a daemon was away for %d ms", time.Since(begin).Milliseconds())
		f.client.soak(6 * time.Second)
		w.calm(t, begin, func(viewer, of *fleetHost) bool { return viewer == restarted })

		for range times(3) {
			f.dies(t, killed, "by kill -9", killed.kill, but(f.hosts, killed))
			killed.up()
			f.whole()
			f.client.settled()
			f.dies(t, unplugged, "by its cable", func() { f.cable(unplugged, true); f.client.fallsAll(unplugged) }, but(f.hosts, unplugged))
			f.cable(unplugged, false)
			f.client.fogAll(unplugged)
			f.whole()
			f.client.risesAll(unplugged)
			f.client.settled()
		}
		f.flap(t, w, flaps)
		f.client.check()
	})
}

// dies kills a host and measures how long it takes until none of the others answers with it.
func (f *fleet) dies(t *testing.T, h *fleetHost, how string, kill func(), others []*fleetHost) {
	t.Helper()
	begin := time.Now()
	kill()
	f.client.settledOn(others)
	took := time.Since(begin)
	t.Logf("a host that died %s is left out by all %d others after %d ms", how, len(others), took.Milliseconds())
	if verifying() && !raceEnabled && took > outWithin {
		t.Errorf("left out after %v, want ≤ %v", took, outWithin)
	}
}

// flap has a host away for 8 s and back for 4 s, again and again, and then steady.
func (f *fleet) flap(t *testing.T, w *witness, h *fleetHost) {
	t.Helper()
	others := but(f.hosts, h)
	begin := w.mark()
	f.client.fallsAll(h)
	rounds := 2
	if verifying() {
		rounds = 10
	}
	for range rounds {
		f.cable(h, true)
		f.client.soak(8 * time.Second)
		f.cable(h, false)
		f.client.soak(4 * time.Second)
	}
	for _, viewer := range others {
		if n := len(w.changes(viewer, h, begin)); n != 1 {
			t.Errorf("%s changed its mind of the flapping host %d times, want once", viewer.name, n)
		}
		if n := f.client.turnovers(viewer, h, begin); n > 1 {
			t.Errorf("%s's answers of the flapping host changed %d times, want once", viewer.name, n)
		}
	}
	f.client.fogAll(h)
	var held time.Duration
	for _, viewer := range others {
		s, err := viewer.outlook()
		must(t, err)
		for _, m := range s.Members {
			if m.Name == h.name && m.HeldUntil != nil {
				held = max(held, time.Until(*m.HeldUntil))
			}
		}
	}
	f.saysHeld(t, h, others[0])
	t.Logf("a host that flapped for %d s is held down for %.1f s more", rounds*12, held.Seconds())
	f.client.soak(held)
	f.whole()
	f.client.risesAll(h)
	f.client.settled()
	w.once(t, h, others, begin)
	w.calm(t, begin, func(viewer, of *fleetHost) bool { return viewer == h || of == h })
}

// saysHeld sees to it that people are told of a host that is held down: by another's members and log, and by itself.
func (f *fleet) saysHeld(t *testing.T, h, viewer *fleetHost) {
	t.Helper()
	eventually(t, "members says until when the host is held", func() error {
		out, err := viewer.meibo("members")
		if err != nil || !strings.Contains(out, h.name+" is back, held until ") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	if !strings.Contains(viewer.log(), `msg="gossip: member is back and is left out until it has been steady" node=`+h.name) {
		t.Errorf("%s does not log that %s is held down", viewer.name, h.name)
	}
	// It lives: it is asked for its keys, and not taken out for good.
	if out, err := viewer.meibo("keyring", "list"); err != nil || strings.Contains(out, "not asked") {
		t.Errorf("keys while %s is held down: %v\n%s", h.name, err, out)
	}
	for _, args := range [][]string{{"force-leave", h.name}, {"nodes", "forget", h.name}} {
		if out, err := viewer.meibo(args...); err == nil || !strings.Contains(out, "alive") {
			t.Errorf("meibo %s while it is held down: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	out, err := h.meibo("lookup", "web.service.consul")
	if !strings.Contains(out, "the others hold this host down until it is steady") {
		t.Errorf("%s does not say of itself that it is held down: %v\n%s", h.name, err, out)
	}
}

// TestFleet_NobodyDiesByLoss loses a fifth of all packets; then cuts an agent's way to the server that feeds it; then cuts
// the leader's gossip while its Raft goes on.
func TestFleet_NobodyDiesByLoss(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.start()
		w := newWitness(f)

		begin := w.mark()
		f.between(f.hosts, f.hosts, netswitch.Path{Loss: 0.2})
		f.client.soak(long(10*time.Minute, 15*time.Second))
		w.calm(t, begin, func(_, _ *fleetHost) bool { return false })
		f.net.Heal()
		f.whole()

		for _, agent := range f.agents()[:min(times(4), 4)] {
			f.cutsStream(t, agent)
		}
		f.whole()
		f.cutsGossip(t, w, f.leader())
		f.client.check()
	})
}

// cutsStream cuts an agent off from the server that feeds it, and waits until another does.
func (f *fleet) cutsStream(t *testing.T, agent *fleetHost) {
	t.Helper()
	s, err := agent.outlook()
	must(t, err)
	at := slices.IndexFunc(f.servers(), func(h *fleetHost) bool { return strings.HasPrefix(s.Server, h.addr()+":") })
	if at < 0 {
		t.Fatalf("%s is fed by %q, which is none of the servers", agent.name, s.Server)
	}
	begin := time.Now()
	f.net.SetBoth(agent.n, f.servers()[at].n, netswitch.Path{Cut: true})
	eventually(t, "another server feeds the agent", func() error {
		now, err := agent.outlook()
		if err == nil && (now.Server == s.Server || now.Server == "" || now.Stale) {
			err = fmt.Errorf("fed by %q, stale: %v", now.Server, now.Stale)
		}
		return err
	})
	took := time.Since(begin)
	t.Logf("an agent's stream moved to another server %d ms after its cable was cut", took.Milliseconds())
	if verifying() && !raceEnabled && took > 3*time.Second {
		t.Errorf("moved after %v, want ≤ 3 s", took)
	}
	f.net.Heal()
}

// cutsGossip cuts a leader's gossip: to it all the others seem dead, and it is the one who could take them all out.
func (f *fleet) cutsGossip(t *testing.T, w *witness, leader *fleetHost) {
	t.Helper()
	const port = 8301
	others := but(f.hosts, leader)
	begin := w.mark()
	f.client.fogAll(leader)
	f.between([]*fleetHost{leader}, others, netswitch.Path{Cut: true, Port: port})
	took := w.outOn(t, leader, others)
	eventually(t, "the leader suspects itself", func() error {
		s, err := leader.outlook()
		if err == nil && !s.Braking {
			err = fmt.Errorf("it doesn't: %+v", s.Members)
		}
		return err
	})
	f.client.soak(long(70*time.Second, 5*time.Second)) // longer than the minute in which the deaths of many are one event
	var checks []struct{ Node, CheckID string }
	must(t, leader.get("/v1/health/state/critical", &checks))
	for _, c := range checks {
		if c.CheckID == "serfHealth" && c.Node != leader.name {
			t.Errorf("the leader took out %s", c.Node)
		}
	}
	if now := f.leader(); now != leader {
		t.Errorf("%s leads now, want %s still", now.name, leader.name)
	}
	must(t, f.agents()[0].call("PUT", "/v1/catalog/register", `{"Node":"ext","Address":"192.0.2.1"}`, nil))
	t.Logf("a leader without gossip is left out after %d ms, leads on, and takes out nobody", took.Milliseconds())
	w.calm(t, begin, func(_, of *fleetHost) bool { return of == leader })
	f.rejoin(t, "the leader's gossip")
	w.calm(t, begin, func(_, of *fleetHost) bool { return of == leader })
}

// TestFleet_WorksFarApart has 200 ms and 10 % loss on every path from the start.
func TestFleet_WorksFarApart(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.between(f.hosts, f.hosts, netswitch.Path{Delay: 200 * time.Millisecond, Loss: 0.1})
		start := time.Now()
		for _, h := range f.hosts {
			h.up()
		}
		for _, h := range f.hosts { // one by one: to ask them all takes its time here
			eventually(t, h.name+" is one of the cluster", h.seesAll)
		}
		t.Logf("7 hosts are one cluster after %.1f s", time.Since(start).Seconds())
		f.offer()
		w := newWitness(f)
		begin, leader, changes, looks := w.mark(), f.leader(), 0, 0
		for end := begin.Add(long(time.Minute, 8*time.Second)); time.Now().Before(end); looks++ {
			if now := f.leader(); now != leader {
				leader = now
				changes++
			}
			f.client.soak(100 * time.Millisecond)
		}
		t.Logf("400 ms of round trip and 10 %% loss: %d looks, %d changes of leader in %.0f s", looks, changes, time.Since(begin).Seconds())
		if changes > 0 && !raceEnabled {
			t.Errorf("%d changes of leader, want none", changes)
		}
		w.calm(t, begin, func(_, _ *fleetHost) bool { return false })
		f.client.check()
	})
}
