package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver/listen"
	"meibo/resolver/resolvconf"
)

const (
	dnsPort = 53
	// slow is more than a server on the same continent takes for what it knows.
	slow = 250 * time.Millisecond
	// mostServers bounds how many upstreams are asked.
	mostServers = 32
)

// agent looks whether the daemon runs.
func agent(_ context.Context, e *exam) []Finding {
	switch {
	case e.Agent == nil:
		return []Finding{unknown("the daemon was not asked", "")}
	case e.self == nil:
		return []Finding{critical("no daemon answers: "+lastOf(e.selfErr), "start it: "+e.daemon()+"; one whose API is elsewhere is named by -http-addr")}
	case !e.self.IsMeibo():
		return []Finding{critical(fmt.Sprintf("the API is answered by Consul %s, not by meibo", e.self.Config.Version), "name meibo's address with -http-addr; if none runs, "+e.daemon())}
	}
	return []Finding{ok("%s runs, %s", e.self.Config.NodeName, e.self.Config.Version)}
}

// lastOf is what an error says at its end, without the whole way there.
func lastOf(err error) string {
	var call *net.OpError
	if errors.As(err, &call) {
		return call.Err.Error()
	}
	return err.Error()
}

// listens are the addresses of DNS: those that the daemon has, or that are configured, or where programs ask.
func (e *exam) listens() []netip.AddrPort {
	out := e.told("DNSAddrs")
	if len(out) == 0 && e.config != nil && e.config.ListenSet {
		out = slices.Clone(e.config.Listen)
	}
	if len(out) == 0 {
		out = []netip.AddrPort{netip.AddrPortFrom(e.Server, dnsPort)}
	}
	return out
}

// told are addresses that the daemon tells of itself.
func (e *exam) told(key string) (out []netip.AddrPort) {
	if e.self == nil || !e.self.IsMeibo() {
		return nil
	}
	addrs, _ := e.self.DebugConfig[key].([]any)
	for _, a := range addrs {
		text, _ := a.(string)
		if at, err := netip.ParseAddrPort(strings.TrimPrefix(text, "udp://")); err == nil {
			out = append(out, at) // those of TCP are the same
		}
	}
	return out
}

// ports looks who has the addresses of DNS.
func ports(ctx context.Context, e *exam) []Finding {
	var out []Finding
	for _, at := range e.listens() {
		out = append(out, port(ctx, e, at))
	}
	return out
}

func port(ctx context.Context, e *exam, at netip.AddrPort) Finding {
	asked := at
	if at.Addr().IsUnspecified() {
		asked = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
		if at.Addr().Is6() {
			asked = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
		}
	}
	q := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	q.Question[0].Qclass = dns.ClassCHAOS
	reply, _, err := ask(ctx, asked, q)
	if err == nil && isMeibo(reply) {
		return ok("meibo answers DNS at %s", at)
	}
	who := orWord(listen.InUse("udp", at), listen.InUse("tcp", at))
	switch {
	case strings.Contains(who, "meibo (pid "):
		return critical(fmt.Sprintf("%s has %s, and does not answer there: %v", who, at, orErr(err, "another answers")), "`systemctl restart meibo`; `journalctl -u meibo` says what it waits for")
	case who == "systemd (pid 1)":
		return critical(fmt.Sprintf("systemd keeps %s, and nobody answers there", at), e.daemon())
	case who == "":
		return critical(fmt.Sprintf("nobody answers DNS at %s", at), "start the daemon: "+e.daemon())
	}
	return critical(fmt.Sprintf("%s is taken by %s", at, who), makeRoom(who, at))
}

// isMeibo reports whether it is meibo that said which version it is.
func isMeibo(reply *dns.Msg) bool {
	return slices.ContainsFunc(reply.Answer, func(rr dns.RR) bool {
		txt, is := rr.(*dns.TXT)
		return is && strings.HasPrefix(strings.Join(txt.Txt, ""), "meibo ")
	})
}

// makeRoom is how a process gives an address up.
func makeRoom(who string, at netip.AddrPort) string {
	name, _, _ := strings.Cut(who, " (pid ")
	switch name {
	case "systemd-resolve", "systemd-resolved":
		return "DNSStubListener=no in a file of /etc/systemd/resolved.conf.d and `systemctl restart systemd-resolved`; `meibo resolv install` does that and has it ask meibo"
	case "dnsmasq":
		return "`meibo migrate` shows what of it meibo takes over, -apply does; where libvirt, LXC or NetworkManager start it, give it bind-interfaces and an address of its own"
	case "docker-proxy":
		return "a container publishes the port: publish it at another address (`-p ADDRESS:53:53`)"
	}
	return fmt.Sprintf("stop and disable it, or give meibo another address than %s in listen", at)
}

func orErr(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return err
}

// upstream is a server that meibo forwards to.
type upstream struct {
	at     netip.AddrPort
	suffix string // of the names it is asked for
	from   string // file of the host that names it; "": the configuration does
}

func (u upstream) String() string {
	switch {
	case u.from != "":
		return fmt.Sprintf("%s (of %s)", u.at, u.from)
	case u.suffix != ".":
		return fmt.Sprintf("%s (for %s)", u.at, u.suffix)
	}
	return u.at.String()
}

const recursors = `recursors = ["ADDRESS"]`

// upstreams asks each of them.
func upstreams(ctx context.Context, e *exam) []Finding {
	list, err := e.upstreams()
	if err != nil && errors.Is(e.faults, fs.ErrPermission) {
		return []Finding{unknown("upstream servers are in a configuration that this user may not read", "run `meibo doctor` as root")}
	}
	if err != nil {
		return []Finding{critical("no upstream server is known: "+err.Error(), "name some in the configuration: "+recursors)}
	}
	found := make([][]Finding, len(list))
	dead := make([]bool, len(list))
	var all sync.WaitGroup
	for i, u := range list {
		if e.asksUs(u.at) {
			found[i] = []Finding{critical(fmt.Sprintf("upstream %s asks meibo: questions go round in a circle", u), "name the true servers: "+recursors)}
			continue
		}
		all.Go(func() { found[i], dead[i] = examineUpstream(ctx, u) })
	}
	all.Wait()
	if !slices.Contains(dead, false) {
		for i := range found {
			found[i][0].Status = Critical // it was the last
		}
	}
	return slices.Concat(found...)
}

// upstreams are those of the configuration, or what the host was given.
func (e *exam) upstreams() (list []upstream, err error) {
	if e.config != nil {
		for _, s := range e.config.Forward.Recursors {
			list = append(list, upstream{at: s, suffix: "."})
		}
	} else {
		for _, s := range e.told("DNSRecursors") {
			list = append(list, upstream{at: s, suffix: "."})
		}
	}
	if len(list) == 0 {
		c := resolvconf.Config{Root: e.Root, Self: append(e.listens(), netip.AddrPortFrom(e.Server, dnsPort))}
		if e.config != nil {
			c.Path = e.config.Forward.ResolvFile
		}
		up, err := resolvconf.Find(c)
		if err != nil {
			return nil, err
		}
		for _, s := range up.Servers {
			list = append(list, upstream{s, ".", up.From})
		}
	}
	if e.config != nil {
		for _, r := range e.config.Forward.Routes {
			for _, s := range r.Servers {
				if !r.TLS.IsSet() {
					list = append(list, upstream{at: s, suffix: r.Suffix})
				}
			}
		}
	}
	return list[:min(len(list), mostServers)], nil
}

// asksUs reports whether a server is meibo, or a resolver of this host that asks it.
func (e *exam) asksUs(at netip.AddrPort) bool {
	if slices.Contains(e.listens(), at) || at == netip.AddrPortFrom(e.Server, dnsPort) {
		return true
	}
	return at == netip.AddrPortFrom(stub, dnsPort) && e.resolvedAsksUs()
}

// examineUpstream asks one server what it must know; dead if it does not serve this host at all.
func examineUpstream(ctx context.Context, u upstream) (out []Finding, dead bool) {
	const elsewhere = "; else name another one: " + recursors
	q := new(dns.Msg).SetQuestion(u.suffix, dns.TypeNS)
	if u.suffix != "." {
		q.Question[0].Qtype = dns.TypeSOA
	}
	reply, took, err := ask(ctx, u.at, q)
	switch {
	case errors.Is(err, errOther):
		return []Finding{critical(fmt.Sprintf("upstream %s answers other than what it was asked", u), "something on the way answers in its place (a firewall, a captive portal, a forger): ask at the network"+elsewhere)}, true
	case errors.Is(err, syscall.ECONNREFUSED):
		return []Finding{warning(fmt.Sprintf("upstream %s is not there: nobody listens", u), "start it, or take it out"+elsewhere)}, true
	case err != nil:
		return []Finding{warning(fmt.Sprintf("upstream %s does not answer within %v: %v", u, patience, lastOf(err)), "see whether it runs, and whether a firewall lets UDP port "+fmt.Sprint(u.at.Port())+" through"+elsewhere)}, true
	case reply.Rcode == dns.RcodeRefused:
		return []Finding{warning(fmt.Sprintf("upstream %s refuses this host", u), "have it allow recursion for this host"+elsewhere)}, true
	case reply.Rcode != dns.RcodeSuccess && u.suffix == ".":
		return []Finding{warning(fmt.Sprintf("upstream %s answers %s for the root: it has no way to the Internet, or no upstream", u, dns.RcodeToString[reply.Rcode]), "mend it where it runs"+elsewhere)}, false
	}
	if took > slow { // the first had to be fetched, perhaps
		if _, again, err := ask(ctx, u.at, q); err == nil {
			took = min(took, again)
		}
	}
	if took > slow {
		out = append(out, warning(fmt.Sprintf("upstream %s takes %v for what it has in its cache", u, took.Round(time.Millisecond)), "name one that is nearer: "+recursors))
	}
	out = append(out, unasked(ctx, u)...)
	return orOK(out, "upstream %s answers in %v", u, took.Round(100*time.Microsecond)), false
}

// unasked looks for faults that a plain answer does not show.
func unasked(ctx context.Context, u upstream) (out []Finding) {
	if u.suffix == "." {
		none := new(dns.Msg).SetQuestion("meibo-doctor.invalid.", dns.TypeA)
		if reply, _, err := ask(ctx, u.at, none); err == nil && len(reply.Answer) > 0 {
			out = append(out, warning(fmt.Sprintf("upstream %s has addresses for names that do not exist", u), "programs take a wrong name for a right one: have that switched off there, or name another one: "+recursors))
		}
	}
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", u.at.String())
	if err != nil {
		return append(out, warning(fmt.Sprintf("upstream %s answers over UDP, but not over TCP (%s): large answers are lost", u, lastOf(err)), fmt.Sprintf("let TCP port %d through the firewall", u.at.Port())))
	}
	conn.Close()
	return out
}

// errOther says that an answer was to another question, and that none to the one asked came.
var errOther = errors.New("the answer is to another question")

// ask asks a server over UDP, twice if the first packet is lost, and takes answers to this very question alone.
func ask(ctx context.Context, server netip.AddrPort, q *dns.Msg) (reply *dns.Msg, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	packet, err := q.Pack()
	if err != nil {
		return nil, 0, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	var other bool
	buf := make([]byte, dns.MaxMsgSize)
	for range 2 {
		begin := time.Now()
		_ = conn.SetReadDeadline(begin.Add(patience / 2))
		if _, err := conn.Write(packet); err != nil {
			return nil, 0, err
		}
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, 0, err
			}
			reply := new(dns.Msg)
			if reply.Unpack(buf[:n]) == nil && reply.Response && reply.Id == q.Id && len(reply.Question) == 1 && sameQuestion(reply.Question[0], q.Question[0]) {
				return reply, time.Since(begin), nil
			}
			other = true
		}
		if ctx.Err() != nil {
			break
		}
	}
	if other {
		return nil, 0, errOther
	}
	return nil, 0, errSilent
}

var errSilent = errors.New("it is silent")

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// clock is how the kernel's clock is kept.
type clock struct {
	synced bool
	off    time.Duration // at most
}

// clockIsSet looks whether somebody sets the clock.
func clockIsSet(_ context.Context, e *exam) []Finding {
	read := e.clock
	if read == nil {
		read = kernelClock
	}
	c, err := read()
	if err != nil {
		return []Finding{unknown("how the clock is kept can't be told: "+err.Error(), "")}
	}
	if !c.synced {
		return []Finding{warning("nobody keeps the clock: the kernel says that it is not synchronised", "`timedatectl set-ntp true`, or install chrony")}
	}
	if c.off > time.Second {
		return []Finding{warning(fmt.Sprintf("the clock may be wrong by %v", c.off.Round(time.Millisecond)), "see why its time server is not reached: `timedatectl timesync-status`, `chronyc tracking`")}
	}
	return []Finding{ok("the clock is kept, wrong by %v at most", c.off.Round(time.Millisecond))}
}

// disk looks whether there is room for what is kept.
func disk(_ context.Context, e *exam) []Finding {
	if e.config == nil || e.config.DataDir == "" {
		return []Finding{unknown("where data is kept is not known without the configuration", "")}
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(e.at(e.config.DataDir), &s); err != nil {
		if f, is := notAllowed(e.config.DataDir, err); is {
			return []Finding{f}
		}
		return []Finding{unknown(fmt.Sprintf("%s is not there yet", e.config.DataDir), "")}
	}
	const enough = 64 << 20 // below it Raft's log may not fit
	if free := uint64(s.Bavail) * uint64(s.Bsize); free < enough {
		return []Finding{critical(fmt.Sprintf("the disk of %s has %d MiB free", e.config.DataDir, free>>20), "make room: nothing new is kept when it is full, and a server stops taking part")}
	}
	return []Finding{ok("the disk of %s has room", e.config.DataDir)}
}
