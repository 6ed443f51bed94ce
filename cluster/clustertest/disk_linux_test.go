package clustertest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// BreakDisk has the disk of a host that runs fail: what it has open is full, and
// nothing can be opened, until [Host.MendDisk].
func (h *Host) BreakDisk() {
	h.c.Helper()
	synctest.Wait() // nothing runs, and nobody opens or closes
	if err := h.breakDisk(); err != nil {
		h.c.Fatal(err)
	}
}

func (h *Host) breakDisk() error {
	if err := os.Rename(h.dir, h.away()); err != nil {
		return err
	}
	if err := os.WriteFile(h.dir, nil, 0o600); err != nil { // what isn't a folder has nothing in it
		return err
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer full.Close()
	links, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, link := range links {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", link.Name()))
		if err != nil || !strings.HasPrefix(path, h.away()+"/") {
			continue
		}
		fd, err := strconv.Atoi(link.Name())
		if err != nil {
			return err
		}
		if err := unix.Dup3(int(full.Fd()), fd, unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func (h *Host) away() string { return h.dir + "-away" }

// MendDisk has the disk work again, with what was on it when it broke.
func (h *Host) MendDisk() {
	h.c.Helper()
	synctest.Wait()
	err := os.Remove(h.dir)
	if err == nil {
		err = os.Rename(h.away(), h.dir)
	}
	if err != nil {
		h.c.Fatal(err)
	}
}

// Tear leaves on the disk of a host that is down what a write leaves that was under way
// at its death: half a page in the log's file, where the next transaction ends, and the
// beginning of a file that was to replace another.
func (h *Host) Tear() {
	h.c.Helper()
	if err := tearLog(filepath.Join(h.dir, "data", "raft", "raft.db")); err != nil && !os.IsNotExist(err) {
		h.c.Fatal(err)
	}
	for _, name := range []string{"view", "data/serf/members.json"} {
		path := filepath.Join(h.dir, name)
		whole, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path+".new-1", whole[:len(whole)/2], 0o600)
		}
		if err != nil && !os.IsNotExist(err) {
			h.c.Fatal(err)
		}
	}
}

// tearLog tears the older of the two pages that a bbolt file begins with: a transaction
// ends by writing that one.
func tearLog(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	page := int64(os.Getpagesize())
	const number = 64 // where a page has its transaction's number
	var of [2]uint64
	for i := range of {
		var b [8]byte
		if _, err := f.ReadAt(b[:], int64(i)*page+number); err != nil {
			return err
		}
		of[i] = binary.LittleEndian.Uint64(b[:])
	}
	older := int64(0)
	if of[1] < of[0] {
		older = page
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], max(of[0], of[1])+1)
	_, err = f.WriteAt(b[:], older+number) // and its checksum isn't there yet
	return err
}

// A leader whose disk fails hands over; it answers on, and is the same server when its
// disk works again.
func TestDiskFails_AnotherLeads(t *testing.T) {
	opts := small
	opts.Disks = true
	Run(t, opts, func(c *Cluster) {
		c.StartAll()
		w := c.Witness()
		begin := w.Mark()
		for range 3 {
			h := c.Leader()
			said := len(h.Log())
			h.BreakDisk()
			c.Within(2*time.Second, "a write", c.Agents()[0].write)
			time.Sleep(20 * time.Second)
			h.MendDisk()
			took := c.Within(time.Minute, "three servers vote", func() error { return c.voters(3) })
			c.Logf("a server whose disk failed votes %v after that works again", took)
			if strings.Contains(h.Log()[said:], "not in the Raft configuration") {
				c.Errorf("%s was taken out:\n%s", h.Name, h.Log()[said:])
			}
		}
		w.Calm(begin, func(_, _ *Host) bool { return false })
		c.Settled()
	})
}

// One whose last write was torn by its death loses nothing that was acknowledged.
func TestTornWrite_LosesNothing(t *testing.T) {
	opts := small
	opts.Disks = true
	Run(t, opts, func(c *Cluster) {
		c.StartAll()
		time.Sleep(3 * time.Second) // views are on disk by then
		for i := range 10 {
			name, h := fmt.Sprintf("ext%d", i), c.Servers()[i%3]
			if err := c.Leader().apply(external(name, "192.0.2.1")); err != nil {
				c.Fatal(err)
			}
			for _, s := range c.Servers() {
				s.Kill()
				s.Tear()
			}
			for _, s := range c.Servers() {
				s.Start()
			}
			c.Whole()
			if err := h.answersWith(name); err != nil {
				c.Error(err)
			}
		}
		c.Settled()
	})
}

// answersWith reports what is wrong with the host's answer for an external service.
func (h *Host) answersWith(service string) error {
	if got := h.Lookup(service); got.Err != nil || len(got.Addrs) != 1 {
		return fmt.Errorf("%s on %s: %v %v", service, h.Name, got.Addrs, got.Err)
	}
	return nil
}
