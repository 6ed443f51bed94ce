package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// TestHandedOverSockets_AreServed: the sockets are bound by somebody else (systemd, say) and come with LISTEN_FDS. What was
// asked before the daemon ran waits in them, and is answered.
func TestHandedOverSockets_AreServed(t *testing.T) {
	s := newSite(t, "")
	tcp, err := net.Listen("tcp", s.dns)
	must(t, err)
	udp, err := net.ListenPacket("udp", s.dns)
	must(t, err)
	tcpFile, err := tcp.(*net.TCPListener).File()
	must(t, err)
	udpFile, err := udp.(*net.UDPConn).File()
	must(t, err)

	early, err := net.Dial("udp", s.dns)
	must(t, err)
	defer early.Close()
	question := new(dns.Msg)
	question.SetQuestion("web.service.consul.", dns.TypeA)
	packed, err := question.Pack()
	must(t, err)
	_, err = early.Write(packed)
	must(t, err)

	bin, err := meiboBinary()
	must(t, err)
	// systemd sets LISTEN_PID between fork and exec, which only a shell can do here.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@"`, bin,
		"agent", "-config-dir", filepath.Join(s.dir, "conf"), "-data-dir", s.data())
	cmd.ExtraFiles = []*os.File{udpFile, tcpFile}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := start(t, cmd)
	for _, c := range []interface{ Close() error }{tcp, udp, tcpFile, udpFile} {
		must(t, c.Close()) // from here on the daemon's are the only ones
	}

	reply := make([]byte, 512)
	n, err := early.Read(reply)
	must(t, err)
	m := new(dns.Msg)
	must(t, m.Unpack(reply[:n]))
	if got := answers(m); m.Id != question.Id || len(got) != 1 || got[0] != "A 192.0.2.10" {
		t.Errorf("the question that waited in the socket: got %v", m)
	}
	if m, err := ask(s.dns, "tcp", "web.service.consul", dns.TypeA); err != nil || len(m.Answer) != 1 {
		t.Errorf("over TCP: %v %v", m, err)
	}
	p.Stop(t)
}
