package migrate

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meibo/cmd/meibo/config"
)

const (
	askTime = time.Second // for one answer, of which there may be
	askings = 2
	// fromEach bounds how many names of hosts files, and how many records, are asked: some of each show whether they are known.
	fromEach = 10
)

// question is a name that is asked before and after.
type question struct {
	name   string
	qtype  uint16
	static bool // known on this host itself: the answer stays the same
	asked  bool // by whoever runs this: it must be answered
}

func (q question) String() string { return q.name + " " + dns.TypeToString[q.qtype] }

// answer is what came back.
type answer struct {
	rcode   int
	records []string // data of the type that was asked, sorted
}

func (a answer) String() string {
	if a.rcode != dns.RcodeSuccess {
		return dns.RcodeToString[a.rcode]
	}
	if len(a.records) == 0 {
		return "no data"
	}
	return strings.Join(a.records, ", ")
}

func (a answer) hasData() bool { return a.rcode == dns.RcodeSuccess && len(a.records) > 0 }

// questions are names of which dnsmasq's configuration shows that they are known here, or who is asked about them.
func questions(src Source, cfg *config.Config) []question {
	var all []question
	add := func(q question) {
		if q.name = strings.ToLower(withDot(q.name)); !slices.ContainsFunc(all, func(o question) bool { return o.name == q.name && o.qtype == q.qtype }) {
			all = append(all, q)
		}
	}
	for _, name := range src.Names {
		add(question{name: name, qtype: dns.TypeA, asked: true})
	}
	for _, text := range first(cfg.Hosts.Records, fromEach) {
		if rr, err := dns.NewRR(text); err == nil && rr != nil && rr.Header().Rrtype != dns.TypeCNAME {
			add(question{name: rr.Header().Name, qtype: rr.Header().Rrtype, static: true})
		}
	}
	n := 0
	for _, file := range cfg.Hosts.Files {
		data, err := os.ReadFile(src.Root + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) < 2 || n == fromEach || strings.HasPrefix(f[1], "localhost") {
				continue
			}
			addr, err := netip.ParseAddr(f[0])
			if err != nil || addr.IsMulticast() || addr.IsUnspecified() {
				continue
			}
			n++
			qtype := dns.TypeA
			if addr.Is6() {
				qtype = dns.TypeAAAA
			}
			add(question{name: f[1], qtype: qtype, static: true})
		}
	}
	for _, r := range cfg.Forward.Routes {
		switch {
		case len(r.Addresses) > 0:
			add(question{name: r.Suffix, qtype: dns.TypeA, static: true})
		case strings.HasSuffix(r.Suffix, "consul."):
			add(question{name: "consul.service." + r.Suffix, qtype: dns.TypeA})
		case !r.Local:
			add(question{name: r.Suffix, qtype: dns.TypeSOA})
		}
	}
	add(question{name: ".", qtype: dns.TypeNS}) // whether anything but this host's own is answered
	return all
}

// ask asks a server.
func ask(ctx context.Context, server netip.AddrPort, q question) (answer, error) {
	m := new(dns.Msg).SetQuestion(q.name, q.qtype)
	m.SetEdns0(1232, false) // RFC 9715
	var r *dns.Msg
	var err error
	for range askings {
		client := dns.Client{Timeout: askTime}
		if r, _, err = client.ExchangeContext(ctx, m, server.String()); err == nil && r.Truncated {
			client.Net = "tcp"
			r, _, err = client.ExchangeContext(ctx, m, server.String())
		}
		if err == nil && r.Rcode != dns.RcodeServerFailure || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return answer{}, err
	}
	a := answer{rcode: r.Rcode}
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == q.qtype {
			a.records = append(a.records, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(a.records)
	return a, nil
}

// known is a question and the answer that it had.
type known struct {
	question
	before answer
}

// differs says what is wrong with an answer; "" if nothing is.
func (k known) differs(after answer, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf("%s is not answered any more (before: %s): %v", k.question, k.before, err)
	case !after.hasData(), k.static && !slices.Equal(after.records, k.before.records):
		return fmt.Sprintf("%s is answered with %s; before: %s", k.question, after, k.before)
	}
	return ""
}

// server is where a listener on an address is asked from this host.
func server(listen netip.AddrPort) netip.AddrPort {
	switch {
	case !listen.Addr().IsUnspecified():
		return listen
	case listen.Addr().Is6():
		return netip.AddrPortFrom(netip.IPv6Loopback(), listen.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port())
}
