package clustertest

import (
	"testing"
	"time"

	"meibo/cluster/clustertest/memnet"
	"meibo/cluster/definition"
)

// farOff is longer than contents that nobody asks for stay on disk, and than dead
// hosts are remembered.
const farOff = 40 * 24 * time.Hour

// Hosts answer from their disks, and become one cluster, whatever the clock says: those
// that were weeks ahead when all was written are right after a restart, and then weeks
// ahead again. A running process waits and measures by monotonic time, which no step
// moves; by the clock go the times in files (views, members, states of TTL checks), the
// order of orders to the keyring, the time in a command and the base of a history.
func TestClocks_MayStepWhileHostsAreDown(t *testing.T) {
	opts := small
	opts.Disks, opts.Dir = true, folder(t)
	var last uint64
	Run(t, opts, func(c *Cluster) {
		time.Sleep(farOff)
		c.StartAll()
		time.Sleep(40 * time.Second) // views are on disk by then
		last = c.grows(0)
		c.stopAll()
	})
	Run(t, opts, func(c *Cluster) { // begins when the other did
		for _, h := range c.Agents() {
			h.offersStill("web")
		}
		for _, h := range c.Agents()[:2] {
			h.offersStill("api")
		}
		c.Servers()[0].offersStill("db")
		c.comeBack("back")
		c.Load()
		last = c.grows(last)
		c.Agents()[0].Register("new", 80)
		c.Settled()

		time.Sleep(40 * time.Second)
		c.load.stop()
		for _, h := range c.Hosts {
			h.die((*memnet.Host).SwitchOff)
		}
		time.Sleep(farOff)
		for _, h := range c.Hosts {
			c.Judge.TurnAll(h.Name, Present)
		}
		c.comeBack("forward")
		c.Load()
		c.grows(last)
		time.Sleep(2 * time.Minute)
		c.Settled()
	})
}

// offersStill says that a host has a service on its disk.
func (h *Host) offersStill(service string) {
	h.becomes(service, Present, func() error {
		h.offers[service] = definition.Service{Name: service, ID: service}
		return nil
	})
}

// comeBack starts all hosts, which answer at once.
func (c *Cluster) comeBack(how string) {
	c.Helper()
	begin := time.Now()
	c.startFromDisk()
	c.Whole()
	c.Settled()
	c.Logf("clocks stepped %s: one cluster after %v", how, time.Since(begin))
}

// grows writes, and returns the index, which clients must not see go back.
func (c *Cluster) grows(last uint64) (index uint64) {
	c.Helper()
	c.Within(15*time.Second, "a write", func() (err error) {
		if err = c.Agents()[0].write(); err == nil {
			index = c.Leader().Node().View().Load().Index()
		}
		return err
	})
	if index <= last {
		c.Errorf("the index went back from %d to %d", last, index)
	}
	return index
}

// A host that was dead when the others lost their power is back when it is, however late
// that seems to be.
func TestClocks_WhoWasDeadIsBack(t *testing.T) {
	opts := small
	opts.Disks = true
	Run(t, opts, func(c *Cluster) {
		c.StartAll()
		dead := c.Agents()[0]
		dead.Kill()
		c.OutOn(dead, But(c.Hosts, dead))
		time.Sleep(20 * time.Second)
		c.load.stop()
		for _, h := range But(c.Hosts, dead) {
			h.SwitchOff()
		}
		time.Sleep(farOff)
		for _, h := range c.Hosts {
			h.Start()
		}
		c.Within(time.Minute, "all see it alive", func() error { return c.seeOneAnother() })
		c.Settled()
		c.Load()
		time.Sleep(time.Minute)
	})
}

// seeOneAnother reports who doesn't have whom for alive.
func (c *Cluster) seeOneAnother() error {
	for _, h := range c.Hosts {
		if err := h.seesAll(); err != nil {
			return err
		}
	}
	return nil
}
