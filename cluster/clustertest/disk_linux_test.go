package clustertest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing/synctest"

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
