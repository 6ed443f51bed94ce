package resolvconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
)

const (
	dockerJournal  = "docker.json"
	dockerFile     = "/etc/docker/daemon.json"
	dockerSocket   = "/etc/systemd/system/meibo.socket.d/docker.conf"
	dockerNextText = "`systemctl restart docker` when it suits (it stops containers, unless live-restore is on): Docker reads it at its start, and containers that are made from then on ask meibo"
)

// dockerBridge is the address of Docker's first bridge, unless it was told another.
var dockerBridge = netip.AddrFrom4([4]byte{172, 17, 0, 1})

// DockerStatus is what is known of how containers of Docker resolve names.
type DockerStatus struct {
	State State
	// Address is where containers reach meibo, on port 53; before InstallDocker, where
	// they would.
	Address netip.Addr
	// DNS are the servers that daemon.json names for containers now.
	DNS      []string
	Changes  []Change
	Programs []string
	Notes    []string
	Next     string `json:",omitempty"`
	// Files are what the files that matter would hold after InstallDocker.
	Files map[string]string `json:",omitempty"`
}

// InstallDocker has containers of Docker ask meibo at an address of this host that they
// reach: an invalid one stands for the address of Docker's first bridge; one that is
// link-local (169.254.0.0/16) is given to the loopback interface, and is the same on all
// hosts. A name must resolve there (see [Options]). Docker's fall-back to public servers ends with that. Docker itself is not
// restarted. On an error everything is put back.
func (h *Host) InstallDocker(ctx context.Context, address netip.Addr, name string) (DockerStatus, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return DockerStatus{}, err
	}
	defer unlock()
	j, err := h.load(dockerJournal)
	if err != nil {
		return DockerStatus{}, err
	}
	if j != nil && j.Phase == installed && h.dockerState(j) == Installed && (!address.IsValid() || address == j.Server) {
		return h.dockerStatus(j, address), nil
	}
	if j != nil {
		if _, err := h.end(ctx, dockerJournal, j, false); err != nil {
			return h.dockerStatus(j, address), err
		}
	}
	j, err = h.planDocker(address)
	if err != nil {
		return DockerStatus{}, fmt.Errorf("nothing was changed: %w", err)
	}
	err = h.begin(ctx, dockerJournal, j, func() error {
		if h.Check == nil {
			return nil
		}
		if err := h.Check(ctx, netip.AddrPortFrom(j.Server, dnsPort), name); err != nil {
			return fmt.Errorf("meibo does not resolve names at the address for containers: %w", err)
		}
		return nil
	})
	if err != nil {
		return DockerStatus{}, err
	}
	return h.dockerStatus(j, address), nil
}

// RestoreDocker takes back what InstallDocker changed; what others changed since in
// Docker's configuration stays.
func (h *Host) RestoreDocker(ctx context.Context) (DockerStatus, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return DockerStatus{}, err
	}
	defer unlock()
	j, err := h.load(dockerJournal)
	if err != nil || j == nil {
		return h.dockerStatus(nil, netip.Addr{}), err
	}
	notes, err := h.end(ctx, dockerJournal, j, false)
	if err != nil {
		return h.dockerStatus(j, netip.Addr{}), fmt.Errorf("%w\nnot everything is put back: mend that, then run `meibo resolv docker -restore` again", err)
	}
	s := h.dockerStatus(nil, netip.Addr{})
	s.Notes = append(s.Notes, notes...)
	s.Next = dockerNextText
	return s, nil
}

// Docker tells how containers resolve names, and what InstallDocker would have files
// hold. It changes nothing.
func (h *Host) Docker(address netip.Addr) (DockerStatus, error) {
	j, err := h.load(dockerJournal)
	if err != nil {
		return DockerStatus{}, err
	}
	s := h.dockerStatus(j, address)
	if j == nil {
		plan, err := h.planDocker(address)
		if err != nil {
			return s, err
		}
		s.Files = map[string]string{}
		for _, step := range plan.Steps {
			if step.Path != "" {
				s.Files[step.Path] = string(step.After.Data)
			}
		}
	}
	return s, nil
}

func (h *Host) dockerState(j *journal) State {
	if j == nil {
		return Off
	}
	if j.Phase != installed {
		return Unfinished
	}
	for _, s := range j.Steps {
		now := h.tree().now(s)
		if s.Path == dockerFile && slices.Equal(h.dockerDNS(), []string{j.Server.String()}) {
			continue // others changed something else
		}
		if now != "" && now != asWritten {
			return Overwritten
		}
	}
	return Installed
}

func (h *Host) dockerStatus(j *journal, address netip.Addr) DockerStatus {
	s := DockerStatus{State: h.dockerState(j), DNS: h.dockerDNS(), Changes: []Change{}, Programs: []string{}, Notes: []string{}}
	if s.DNS == nil {
		s.DNS = []string{}
	}
	if j == nil {
		s.Address = h.dockerAddress(address)
		return s
	}
	var taken Status
	taken.taken(h.tree(), j, sight{})
	s.Address, s.Changes, s.Programs, s.Notes = j.Server, taken.Changes, append(s.Programs, taken.Programs...), append(s.Notes, j.Notes...)
	switch s.State {
	case Installed:
		s.Next = dockerNextText
	case Overwritten:
		s.Next = "`meibo resolv docker -apply` does it anew, `meibo resolv docker -restore` ends it"
	case Unfinished:
		s.Next = "`meibo resolv docker -restore` takes back what was begun"
	}
	return s
}

// dockerDNS are the servers that daemon.json names.
func (h *Host) dockerDNS() []string {
	text, _ := h.tree().follow(dockerFile)
	var settings struct{ DNS []string }
	_ = json.Unmarshal([]byte(text), &settings) // a fault is said when it is to be changed
	return settings.DNS
}

// dockerAddress is where containers reach this host: as said, as daemon.json has it for
// the first bridge, or as that has it now.
func (h *Host) dockerAddress(said netip.Addr) netip.Addr {
	if said.IsValid() {
		return said
	}
	text, _ := h.tree().follow(dockerFile)
	var settings struct{ Bip string }
	_ = json.Unmarshal([]byte(text), &settings)
	if p, err := netip.ParsePrefix(settings.Bip); err == nil {
		return p.Addr()
	}
	if i, err := net.InterfaceByName("docker0"); err == nil && h.Root == "" {
		all, _ := i.Addrs()
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				return p.Addr()
			}
		}
	}
	return dockerBridge
}

func (h *Host) planDocker(said netip.Addr) (*journal, error) {
	t := h.tree()
	if !slices.ContainsFunc([]string{"/etc/docker", "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/run/docker.sock"}, t.exists) {
		return nil, errors.New("there is no Docker on this host: neither /etc/docker nor dockerd")
	}
	address := h.dockerAddress(said)
	if address.IsLoopback() || address.IsUnspecified() || address.IsMulticast() {
		return nil, fmt.Errorf("containers do not reach this host at %s: name the address of a bridge, or a link-local one (169.254.53.53)", address)
	}
	j := &journal{Owner: "Docker", Server: address}
	p := planner{tree: t, j: j}
	if slices.ContainsFunc([]string{"/usr/lib/systemd/system/meibo.socket", "/lib/systemd/system/meibo.socket", "/etc/systemd/system/meibo.socket"}, t.exists) {
		at := netip.AddrPortFrom(address, dnsPort)
		lines := fmt.Sprintf("# Of `meibo resolv docker`: DNS for containers.\n[Socket]\nFreeBind=yes\nListenDatagram=%s\nListenStream=%[1]s\n", at)
		if address.Is4() && address.IsLinkLocalUnicast() {
			lines += fmt.Sprintf("ExecStartPre=/bin/sh -c 'exec ip address replace %s/32 dev lo'\nExecStopPost=-/bin/sh -c 'exec ip address del %[1]s/32 dev lo'\n", address)
		}
		p.file(dockerSocket, lines)
		p.run("systemctl", "daemon-reload")
		p.run("systemctl", "restart", "meibo.socket", "meibo.service")
	} else {
		p.note("there is no meibo.socket on this host: %q must be in listen of meibo's configuration", netip.AddrPortFrom(address, dnsPort))
	}
	s, err := t.fileStep(dockerFile, text(""))
	if err != nil {
		return nil, err
	}
	if s.Before.Kind == regular {
		after := *s.Before
		after.Modified = s.After.Modified
		s.After = &after
	}
	if s.After.Data, err = withDNS(s.Before.Data, address.String()); err != nil {
		return nil, fmt.Errorf("%s: %w", dockerFile, err)
	}
	p.add(s, nil)
	return j, p.err
}

// member is where a member of a JSON object is in its text; without it begin is where
// one could be put.
type member struct {
	begin, value, end int
	there, others     bool
}

func findMember(data []byte, name string) (m member, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	fault := func(err error) (member, error) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return member{}, fmt.Errorf("line %d: %w; mend it first", 1+bytes.Count(data[:min(int(d.InputOffset()), len(data))], []byte("\n")), err)
	}
	if open, err := d.Token(); err != nil {
		return fault(err)
	} else if open != json.Delim('{') {
		return fault(errors.New("it is no JSON object"))
	}
	m.begin = int(d.InputOffset())
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return fault(err)
		}
		begin := int(d.InputOffset()) - len(name) - 2
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return fault(err)
		}
		if key != name {
			m.others = true
			continue
		}
		if begin < 0 || !bytes.HasPrefix(data[begin:], []byte(`"`+name+`"`)) {
			return fault(fmt.Errorf("the key %q is written with escapes", name))
		}
		m.there, m.begin, m.end = true, begin, int(d.InputOffset())
		m.value = m.end - len(value)
	}
	if _, err := d.Token(); err != nil {
		return fault(err)
	}
	if !json.Valid(data) {
		return fault(errors.New("something follows the object"))
	}
	return m, nil
}

// withDNS returns Docker's configuration with one server for containers, and all else
// as it stands there.
func withDNS(data []byte, server string) ([]byte, error) {
	value := fmt.Sprintf("[%q]", server)
	if len(bytes.TrimSpace(data)) == 0 {
		return []byte("{\n  \"dns\": " + value + "\n}\n"), nil
	}
	m, err := findMember(data, "dns")
	if err != nil {
		return nil, err
	}
	if m.there {
		return slices.Concat(data[:m.value], []byte(value), data[m.end:]), nil
	}
	text := "\n  \"dns\": " + value
	if m.others {
		text += ","
	} else if !bytes.HasPrefix(bytes.TrimLeft(data[m.begin:], " \t"), []byte("\n")) {
		text += "\n"
	}
	return slices.Concat(data[:m.begin], []byte(text), data[m.begin:]), nil
}

// withoutDNS takes the server that withDNS put into a configuration out of one that
// others changed since: before is the one that it was put into. ok is false where the
// servers are others by now.
func withoutDNS(data, before []byte, server string) (out []byte, ok bool) {
	m, err := findMember(data, "dns")
	if err != nil || !m.there {
		return nil, false
	}
	var servers []string
	if err := json.Unmarshal(data[m.value:m.end], &servers); err != nil || !slices.Equal(servers, []string{server}) {
		return nil, false
	}
	if old, err := findMember(before, "dns"); err == nil && old.there {
		return slices.Concat(data[:m.value], before[old.value:old.end], data[m.end:]), true
	}
	head, tail := strings.TrimRight(string(data[:m.begin]), " \t\r\n"), strings.TrimLeft(string(data[m.end:]), " \t\r\n")
	if rest, ok := strings.CutPrefix(tail, ","); ok {
		return []byte(head + rest), true
	}
	return []byte(strings.TrimSuffix(head, ",") + "\n" + tail), true
}
