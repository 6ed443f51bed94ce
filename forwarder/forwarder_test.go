package forwarder_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"meibo/cache"
	"meibo/forwarder"
	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const www = "www.test."

var record = www + " 300 IN A 192.0.2.1"

// start runs a forwarder with one default route to the given upstreams.
func start(t *testing.T, route forwarder.Route, us ...*resolvertest.Upstream) *forwarder.Forwarder {
	t.Helper()
	route.Suffix = wire.Root
	for _, u := range us {
		route.Servers = append(route.Servers, u.Addr())
	}
	return run(t, forwarder.Config{Routes: []forwarder.Route{route}})
}

func run(t *testing.T, cfg forwarder.Config) *forwarder.Forwarder {
	t.Helper()
	f, err := forwarder.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

// upstreamOf is the upstream mounted at a suffix.
func upstreamOf(t *testing.T, f *forwarder.Forwarder, suffix wire.Name) resolver.Mount {
	t.Helper()
	for _, m := range f.Mounts() {
		if m.Suffix == suffix && m.Upstream != nil {
			return m
		}
	}
	t.Fatalf("no route at %s", suffix)
	return resolver.Mount{}
}

func question(name string, typ uint16) *wire.Query {
	n, err := wire.ParseName(name)
	if err != nil {
		panic(err)
	}
	return wire.NewQuery(n, typ)
}

func ask(t *testing.T, f *forwarder.Forwarder, q *wire.Query) (resolver.Result, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(patience, cancel).Stop()
	return upstreamOf(t, f, wire.Root).Upstream.Exchange(ctx, q)
}

// patience ends what waits until a timeout of longer, and makes an error of it that nothing
// else does.
const (
	patience = 20 * time.Second
	longer   = time.Minute
)

// mustAsk returns the answer to www.test A as text.
func mustAsk(t *testing.T, f *forwarder.Forwarder) (string, resolver.Result) {
	t.Helper()
	q := question(www, dns.TypeA)
	res, err := ask(t, f, q)
	if err != nil {
		t.Fatalf("exchange: %v", err)
	}
	return text(t, q, res), res
}

func text(t *testing.T, q *wire.Query, res resolver.Result) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(res.Answer.Append(nil, q, wire.Render{})); err != nil {
		t.Fatal(err)
	}
	return dns.RcodeToString[m.Rcode] + " " + strings.Join(resolvertest.Records(m.Answer), "; ")
}

const good = "NOERROR www.test. 300 IN A 192.0.2.1"

func TestExchange_TakesTheReplyAmongWhateverArrives(t *testing.T) {
	for _, tc := range []struct {
		name string
		rule resolvertest.Rule
		tcp  bool
	}{
		{name: "plain"},
		{name: "RFC 4343 a question in lower case", rule: resolvertest.Rule{LowerCase: true}},
		{name: "RFC 5452 section 9.1 a wrong ID", rule: resolvertest.Rule{WrongID: 3}},
		{name: "RFC 5452 section 9.1 a wrong question", rule: resolvertest.Rule{WrongQuestion: 3}, tcp: true},
		{name: "garbage never ends the wait", rule: resolvertest.Rule{Garbage: 3}},
		{name: "the answer twice", rule: resolvertest.Rule{Twice: true}},
		{name: "twenty guesses end UDP", rule: resolvertest.Rule{WrongID: 20, NoAnswer: true}, tcp: true},
		{name: "RFC 2181 section 9 TC leads to TCP", rule: resolvertest.Rule{Truncate: true}, tcp: true},
		{name: "RFC 6891 section 7 FORMERR leads to plain DNS", rule: resolvertest.Rule{RefuseEDNS: true}},
		{name: "FORMERR without the question too", rule: resolvertest.Rule{BareFormErr: true}},
		{name: "one lost packet", rule: resolvertest.Rule{DropFirst: 1}},
		{name: "octets after the message", rule: resolvertest.Rule{Mangle: padded(3)}},
		{name: "a hundred octets after the message", rule: resolvertest.Rule{Mangle: padded(100)}},
		{name: "RFC 2181 section 9 TC cut within a record", rule: resolvertest.Rule{Truncate: true, Partial: true, Mangle: shortened(14)}, tcp: true},
		{name: "TC cut within the OPT", rule: resolvertest.Rule{Truncate: true, Partial: true, Mangle: shortened(3)}, tcp: true},
		{name: "TC cut within the question", rule: resolvertest.Rule{Truncate: true, Partial: true, Mangle: upTo(16)}, tcp: true},
		{name: "a header with TC alone", rule: resolvertest.Rule{Truncate: true, Mangle: upTo(12)}, tcp: true},
		{name: "cut without a word of it", rule: resolvertest.Rule{Mangle: shortened(14)}, tcp: true},
		{name: "less than a header", rule: resolvertest.Rule{Mangle: upTo(5)}, tcp: true},
		{name: "a pointer to nowhere", rule: resolvertest.Rule{Mangle: set(27, 0xff)}, tcp: true},
		{name: "our own question", rule: resolvertest.Rule{Mangle: set(2, 1)}, tcp: true},
		{name: "another opcode", rule: resolvertest.Rule{Mangle: set(2, 0x81|4<<3)}, tcp: true},
		{name: "no question repeated", rule: resolvertest.Rule{Mangle: bare(0)}, tcp: true},
		{name: "RFC 6891 two OPT lead to plain DNS", rule: resolvertest.Rule{Mangle: twoOPT}},
		{name: "BADVERS without a question leads to plain DNS", rule: resolvertest.Rule{BareFormErr: true}},
		{name: "questions with an OPT are dropped", rule: resolvertest.Rule{DropEDNS: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u := resolvertest.NewUpstream(t)
			tc.rule.Records = []string{record}
			u.Set(www, dns.TypeA, tc.rule)
			got, res := mustAsk(t, start(t, forwarder.Route{}, u))
			if got != good {
				t.Errorf("got %q, want %q", got, good)
			}
			if tcp := strings.HasSuffix(res.Source, "over TCP"); tcp != tc.tcp {
				t.Errorf("source %q, want TCP %v", res.Source, tc.tcp)
			}
		})
	}
}

// What may happen to a reply between a server and us.

func padded(n int) func([]byte) []byte {
	return func(msg []byte) []byte { return append(msg, make([]byte, n)...) }
}

func shortened(n int) func([]byte) []byte {
	return func(msg []byte) []byte { return msg[:len(msg)-n] }
}

func upTo(n int) func([]byte) []byte {
	return func(msg []byte) []byte { return msg[:n] }
}

func set(at int, b byte) func([]byte) []byte {
	return func(msg []byte) []byte { msg[at] = b; return msg }
}

// bare is a header with a response code and nothing more.
func bare(rcode byte) func([]byte) []byte {
	return func(msg []byte) []byte { return []byte{msg[0], msg[1], 0x81, 0x80 | rcode, 0, 0, 0, 0, 0, 0, 0, 0} }
}

// twoOPT is for those who answer with an OPT at all.
func twoOPT(msg []byte) []byte {
	if msg[11] == 0 {
		return msg
	}
	msg[11]++
	return append(msg, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0)
}

// What is no answer has the next server asked at once, or is said when there is none.
func TestExchange_WhatIsNoAnswer(t *testing.T) {
	for _, tc := range []struct {
		name string
		rule resolvertest.Rule
		ede  uint16 // alone; 0: passed on as it is
		want string
	}{
		{"SERVFAIL without a question", resolvertest.Rule{Mangle: bare(2)}, 0, "SERVFAIL "},
		{"REFUSED without a question", resolvertest.Rule{Mangle: bare(5)}, 0, "REFUSED "},
		{"FORMERR without a question, whatever is asked", resolvertest.Rule{Mangle: bare(1)}, 0, "FORMERR "},
		{"RFC 2308 section 2.2.1 a referral", resolvertest.Rule{Records: []string{"authority: test. 60 IN NS ns.test."}}, wire.EDEInvalidData, "a referral"},
		{"rubbish over UDP and TCP", resolvertest.Rule{Records: []string{record}, Mangle: shortened(14), MangleTCP: shortened(14)}, wire.EDEInvalidData, "can't be used"},
		{"rubbish over UDP, and no TCP", resolvertest.Rule{Records: []string{record}, Mangle: shortened(14), NoTCP: true}, wire.EDEInvalidData, "it ends too early"},
		{"our own question over UDP and TCP", resolvertest.Rule{Mangle: set(2, 1), MangleTCP: set(2, 1)}, wire.EDEInvalidData, "our own sent back"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u, second := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
			u.Set(www, dns.TypeA, tc.rule)
			second.Answer(www, dns.TypeA, record)
			if got, res := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict, Timeout: longer}, u, second)); got != good || res.Source != "upstream "+second.Addr().String() {
				t.Errorf("with another server: %q from %s", got, res.Source)
			}
			f := start(t, forwarder.Route{}, u)
			for range 5 { // more than it takes to hold a silent server for dead
				q := question(www, dns.TypeA)
				res, err := ask(t, f, q)
				var failure *resolver.Failure
				switch {
				case tc.ede == 0:
					if err != nil || text(t, q, res) != tc.want {
						t.Errorf("alone: %v, %v", res, err)
					}
				case !errors.As(err, &failure) || failure.EDE != tc.ede || !strings.Contains(failure.Text, tc.want):
					t.Errorf("alone: %v, %v", res, err)
				}
			}
			u.Answer("other.test.", dns.TypeA, "other.test. 300 IN A 192.0.2.2")
			if _, err := ask(t, f, question("other.test.", dns.TypeA)); err != nil {
				t.Errorf("it is held for dead: %v", err)
			}
		})
	}
}

// A server of a zone says by a referral where a part of it is, which is what was asked.
func TestExchange_ReferralIsWhatWhoAsksForServersWants(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeNS, resolvertest.Rule{Records: []string{"authority: " + www + " 60 IN NS ns.test."}})
	q := question(www, dns.TypeNS)
	res, err := ask(t, start(t, forwarder.Route{}, u), q)
	if err != nil {
		t.Fatal(err)
	}
	if rrs := res.Answer.RRs(); len(rrs) != 1 || rrs[0].Type != wire.TypeNS {
		t.Errorf("got %v", rrs)
	}
}

// A server that doesn't resolve says nothing of the name: another's word counts, though it is slower.
func TestExchange_LameServersAreNotBelieved(t *testing.T) {
	lame := resolvertest.Rule{NoRA: true}
	for _, tc := range []struct {
		name   string
		second resolvertest.Rule
		want   string
	}{
		{"the next has an answer", resolvertest.Rule{Records: []string{record}}, good},
		{"the next denies it", resolvertest.NXDomain("test.", 60), "NXDOMAIN "},
		{"the next fails", resolvertest.Rule{Rcode: dns.RcodeServerFailure}, "SERVFAIL "},
		{"the next is lame too", lame, "NOERROR "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			first, second := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
			first.Set(www, dns.TypeA, lame)
			second.Set(www, dns.TypeA, tc.second)
			if got, _ := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict}, first, second)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TCP that is blocked leaves what was whole of a cut answer.
func TestExchange_WhatIsWholeOfACutAnswer(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeA, resolvertest.Rule{Records: []string{record, www + " 300 IN A 192.0.2.2"}, Truncate: true, Partial: true, Mangle: shortened(14), NoTCP: true})
	if got, _ := mustAsk(t, start(t, forwarder.Route{}, u)); got != good {
		t.Errorf("got %q, want %q", got, good)
	}
}

// A cut answer, and TCP that is blocked: the next server may have it whole; one that is silent keeps nobody waiting.
func TestExchange_NextServerForAWholeAnswer_RFC2181_9(t *testing.T) {
	cut := resolvertest.Rule{Records: []string{record, www + " 300 IN A 192.0.2.2"}, Truncate: true, Partial: true, NoTCP: true}
	for _, tc := range []struct {
		name   string
		second resolvertest.Rule
		tc     bool
	}{
		{"the next has it", resolvertest.Rule{Records: []string{record}}, false},
		{"the next refuses", resolvertest.Rule{Rcode: dns.RcodeRefused}, true},
		{"the next is silent", resolvertest.Rule{Drop: true}, true},
		{"the next has as much", cut, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			first, second := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
			first.Set(www, dns.TypeA, cut)
			second.Set(www, dns.TypeA, tc.second)
			got, res := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict, Timeout: longer}, first, second))
			if !strings.Contains(got, "192.0.2.1") || res.Answer.TC() != tc.tc {
				t.Errorf("got %q, TC %v", got, res.Answer.TC())
			}
		})
	}
}

// Larger replies are spoilt on their way by some, and TCP is blocked by the same.
func TestExchange_WithoutOPTWhereThatAloneWorks_RFC6891_6_2_2(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeA, resolvertest.Rule{Records: []string{record}, NoTCP: true, Mangle: func(msg []byte) []byte {
		if msg[11] == 0 {
			return msg
		}
		return msg[:len(msg)-14]
	}})
	if got, _ := mustAsk(t, start(t, forwarder.Route{}, u)); got != good {
		t.Errorf("got %q, want %q", got, good)
	}
}

func TestExchange_RemembersWhoDropsEDNS(t *testing.T) {
	t.Run("who never spoke it", func(t *testing.T) {
		t.Parallel()
		u := resolvertest.NewUpstream(t)
		u.SetPlain(true)
		u.Answer(www, dns.TypeA, record)
		u.Answer("next.test.", dns.TypeA, "next.test. 300 IN A 192.0.2.2")
		f := start(t, forwarder.Route{}, u)
		if got, _ := mustAsk(t, f); got != good {
			t.Fatalf("got %q", got)
		}
		if _, err := ask(t, f, question("next.test.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if asked := u.Asked("next.test."); len(asked) != 1 || asked[0].EDNS {
			t.Errorf("the next question came as %+v", asked)
		}
	})
	t.Run("who spoke it a moment ago keeps it, for a loss or two", func(t *testing.T) {
		t.Parallel()
		u := resolvertest.NewUpstream(t)
		u.Answer("first.test.", dns.TypeA, "first.test. 300 IN A 192.0.2.2")
		u.Set(www, dns.TypeA, resolvertest.Rule{Records: []string{record}, DropEDNS: true})
		f := start(t, forwarder.Route{}, u)
		ask := func(name string) (edns bool) {
			t.Helper()
			if _, err := ask(t, f, question(name, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			return u.Asked("first.test.")[len(u.Asked("first.test."))-1].EDNS
		}
		ask("first.test.")
		ask(www)
		if !ask("first.test.") {
			t.Error("it is asked without an OPT after one loss")
		}
		for range 4 {
			ask(www)
		}
		if !ask("first.test.") {
			t.Error("it is asked without an OPT, for a name of which alone it drops that")
		}
		u.SetPlain(true)
		for range 3 {
			ask(www)
		}
		if ask("first.test.") {
			t.Error("it is asked with an OPT though it drops three in a row")
		}
	})
}

// A server that drops EDNS and was held for dead comes back by a probe without it.
func TestProbe_FindsWhoDropsEDNS(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.SetPlain(true)
	u.Answer(www, dns.TypeA, record)
	u.SetDown(true)
	f := start(t, forwarder.Route{Timeout: 3 * time.Second}, u)
	if _, err := ask(t, f, question(www, dns.TypeA)); err == nil {
		t.Fatal("it answered")
	}
	health := upstreamOf(t, f, wire.Root).Upstream.(resolver.Health)
	if !health.Down() {
		t.Fatal("it is not held for dead")
	}
	u.SetDown(false)
	deadline := time.Now().Add(20 * time.Second)
	for health.Down() {
		if time.Now().After(deadline) {
			t.Fatal("no probe found it")
		}
		time.Sleep(10 * time.Millisecond) // the prober tells of nothing
	}
}

func TestExchange_AsksWithItsOwnOPT_RFC6891(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	q := question(www, dns.TypeA)
	q.DO, q.CD, q.AD = true, true, true
	if _, err := ask(t, f, q); err != nil {
		t.Fatal(err)
	}
	got := u.Asked(www)[0]
	if !got.EDNS || got.Size != 1232 || !got.DO || !got.CD || got.AD {
		t.Errorf("asked with %+v, want an OPT of 1232, DO and CD copied, AD clear", got)
	}
}

func TestExchange_RemembersWhoRefusesEDNS(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.SetRefusing(dns.RcodeFormatError)
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	mustAsk(t, f)
	n := len(u.Asked(www))
	mustAsk(t, f)
	if asked := u.Asked(www); len(asked) != n+1 || asked[n].EDNS {
		t.Errorf("asked %+v, want once more, without an OPT", asked)
	}
}

// Of a server that speaks EDNS, a refusal says something of that question alone, with
// or without an OPT; and a client isn't told that its DO was passed on.
func TestExchange_RefusalOfOneQuestionLeavesTheOthersTheirOPT_RFC6891_7(t *testing.T) {
	for name, tc := range map[string]struct {
		rule resolvertest.Rule
		do   bool // was understood
	}{
		"FORMERR without an OPT":         {rule: resolvertest.Rule{RefuseEDNS: true}},
		"FORMERR with an OPT":            {rule: resolvertest.Rule{RefuseEDNS: true, RefuseWithOPT: true}},
		"FORMERR whatever is asked":      {rule: resolvertest.Rule{Rcode: dns.RcodeFormatError}},
		"NOTIMP without an OPT":          {rule: resolvertest.Rule{RefuseEDNS: true, RefuseWith: dns.RcodeNotImplemented}},
		"SERVFAIL, which is not the OPT": {rule: resolvertest.Rule{RefuseEDNS: true, RefuseWith: dns.RcodeServerFailure}},
		"an answer":                      {do: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := resolvertest.NewUpstream(t)
			u.Answer(www, dns.TypeA, record)
			tc.rule.Records = []string{"formerr.test. 300 IN A 192.0.2.2"}
			u.Set("formerr.test.", dns.TypeA, tc.rule)
			f := start(t, forwarder.Route{}, u)
			c, err := cache.New(cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Mounts: f.Mounts()}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { r.Run(ctx) })
			defer wg.Wait()
			defer cancel()
			asked := func(name string) *dns.Msg {
				req := resolvertest.Query(name, dns.TypeA)
				req.IsEdns0().SetDo()
				return resolvertest.Ask(t, r, req, false)
			}
			if m := asked(www); !m.IsEdns0().Do() {
				t.Fatalf("DO is not confirmed: %s", resolvertest.Text(m))
			}
			for range 2 { // the second of the cache
				m := asked("formerr.test.")
				if m.Rcode == dns.RcodeSuccess && m.IsEdns0().Do() != tc.do {
					t.Errorf("DO %v, want %v: %s", m.IsEdns0().Do(), tc.do, resolvertest.Text(m))
				}
			}
			if _, err := ask(t, f, question(www, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			if all := u.Asked(www); !all[len(all)-1].EDNS {
				t.Error("another name is asked without an OPT since")
			}
		})
	}
}

// Old servers say in their own way that they don't know EDNS (RFC 6891 section 7).
func TestExchange_AServerThatNeverSpokeEDNSMayRefuseItByAnyCode(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		t.Run(dns.RcodeToString[rcode], func(t *testing.T) {
			u := resolvertest.NewUpstream(t)
			u.SetRefusing(rcode)
			u.Answer(www, dns.TypeA, record)
			f := start(t, forwarder.Route{}, u)
			mustAsk(t, f)
			mustAsk(t, f)
			asked := u.Asked(www)
			if asked[len(asked)-1].EDNS || asked[len(asked)-2].EDNS {
				t.Errorf("asked %+v, want without an OPT in the end", asked)
			}
		})
	}
	t.Run("a failure is a failure", func(t *testing.T) {
		u := resolvertest.NewUpstream(t)
		u.Set(www, dns.TypeA, resolvertest.Rule{RefuseEDNS: true, RefuseWith: dns.RcodeServerFailure, Rcode: dns.RcodeServerFailure})
		f := start(t, forwarder.Route{}, u)
		if res, err := ask(t, f, question(www, dns.TypeA)); err != nil || res.Answer.Rcode() != wire.RcodeServFail {
			t.Fatalf("got %v", err)
		}
		n := len(u.Asked(www))
		_, _ = ask(t, f, question(www, dns.TypeA))
		if asked := u.Asked(www); !asked[n].EDNS {
			t.Errorf("asked %+v: a SERVFAIL without an OPT too says nothing of EDNS", asked)
		}
	})
}

func TestExchange_NotImpForAQuestionSaysNothingOfEDNS(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeANY, resolvertest.Rule{Rcode: dns.RcodeNotImplemented})
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	if res, err := ask(t, f, question(www, dns.TypeANY)); err != nil || res.Answer.Rcode() != wire.RcodeNotImp {
		t.Fatalf("got %v", err)
	}
	mustAsk(t, f)
	if asked := u.Asked(www); !asked[len(asked)-1].EDNS {
		t.Error("the server is asked without EDNS since")
	}
}

func TestExchange_RandomIDsAndPorts_RFC5452(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	ids, ports := map[uint16]bool{}, map[uint16]bool{}
	const n = 200
	for range n {
		mustAsk(t, f)
	}
	for _, a := range u.Asked(www) {
		ids[a.ID], ports[a.Port] = true, true
	}
	if len(ids) < n-10 || len(ports) < n/2 { // of 256 ports at a time
		t.Errorf("%d questions had %d IDs and %d ports", n, len(ids), len(ports))
	}
}

func TestExchange_NextServerAtOnce(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotAuth} {
		t.Run(dns.RcodeToString[rcode], func(t *testing.T) {
			bad, fine := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
			bad.Set(www, dns.TypeA, resolvertest.Rule{Rcode: rcode})
			fine.Answer(www, dns.TypeA, record)
			if got, _ := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict, Timeout: longer}, bad, fine)); got != good {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		fine := resolvertest.NewUpstream(t)
		fine.Answer(www, dns.TypeA, record)
		f := run(t, forwarder.Config{Routes: []forwarder.Route{{
			Suffix: wire.Root, Mode: forwarder.Strict, Timeout: longer, Servers: []netip.AddrPort{closedPort(t), fine.Addr()},
		}}})
		if got, _ := mustAsk(t, f); got != good {
			t.Errorf("got %q", got)
		}
	})
}

// closedPort is an address on which nobody listens: in 127.0.0.2/8, at a port
// that an upstream of this test holds at 127.0.0.1.
func closedPort(t *testing.T) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), resolvertest.NewUpstream(t).Addr().Port())
}

func TestExchange_DenialsAreFinal(t *testing.T) {
	for name, rule := range map[string]resolvertest.Rule{"NXDOMAIN ": resolvertest.NXDomain("test.", 60), "NOERROR ": resolvertest.NoData("test.", 60)} {
		first, second := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
		first.Set(www, dns.TypeA, rule)
		second.Answer(www, dns.TypeA, record)
		got, _ := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict}, first, second))
		if got != name || len(second.Asked(www)) != 0 {
			t.Errorf("got %q, want %q; the second server was asked %d times", got, name, len(second.Asked(www)))
		}
	}
}

func TestExchange_PassesTheLastBadAnswerOn(t *testing.T) {
	a, b := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
	a.Set(www, dns.TypeA, resolvertest.Rule{Rcode: dns.RcodeServerFailure})
	b.Set(www, dns.TypeA, resolvertest.Rule{Rcode: dns.RcodeRefused})
	got, _ := mustAsk(t, start(t, forwarder.Route{Mode: forwarder.Strict}, a, b))
	if got != "REFUSED " {
		t.Errorf("got %q, want REFUSED", got)
	}
}

func TestExchange_CutAnswerIsBetterThanNone(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeA, resolvertest.Rule{Truncate: true, Partial: true, NoTCP: true, Records: []string{record}})
	got, res := mustAsk(t, start(t, forwarder.Route{}, u))
	if got != good || !res.Answer.TC() {
		t.Errorf("got %q, TC %v", got, res.Answer.TC())
	}
}

func TestExchange_LargestAnswerComesOverTCP(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	rule := resolvertest.Big(www, 300)
	rule.Truncate = true
	u.Set(www, dns.TypeTXT, rule)
	res, err := ask(t, start(t, forwarder.Route{}, u), question(www, dns.TypeTXT))
	if err != nil || res.Answer.AnswerCount() != 300 {
		t.Fatalf("got %d records, %v", res.Answer.AnswerCount(), err)
	}
}

func TestExchange_SilentServerCostsLittleAndThenNothing(t *testing.T) {
	silent, fine := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
	silent.SetDown(true)
	fine.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{Mode: forwarder.Strict, Timeout: longer}, silent, fine)
	began := time.Now()
	got, _ := mustAsk(t, f)
	if d := time.Since(began); got != good || d < 300*time.Millisecond {
		t.Errorf("got %q after %v, want the answer after some 400ms", got, d)
	}
	mustAsk(t, f)
	mustAsk(t, f)
	waitFor(t, "the silent server to be left out", func() bool {
		before := len(silent.Asked(www))
		mustAsk(t, f)
		return len(silent.Asked(www)) == before
	})
	silent.Answer(www, dns.TypeA, www+" 300 IN A 192.0.2.2")
	silent.SetDown(false)
	waitFor(t, "the server to be back", func() bool {
		got, _ := mustAsk(t, f)
		return strings.HasSuffix(got, "192.0.2.2")
	})
}

func TestUpstreamThatComesBack_IsTold(t *testing.T) {
	for how, probed := range map[string]bool{"found by a probe": true, "or by a question": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			u := resolvertest.NewUpstream(t)
			u.Answer(www, dns.TypeA, record)
			var log lockedLog
			cfg := forwarder.Config{
				Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}, Timeout: 500 * time.Millisecond}},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			}
			f := run(t, cfg)
			for round := range 2 {
				u.SetDown(true)
				waitFor(t, "the server to be left out", func() bool {
					_, _ = ask(t, f, question(www, dns.TypeA))
					return log.count("does not answer") == round+1
				})
				u.SetDown(false)
				waitFor(t, "the server to be back", func() bool {
					if !probed {
						_, _ = ask(t, f, question(www, dns.TypeA))
					}
					return log.count("upstream answers again") == round+1
				})
			}
		})
	}
}

// A server says nothing of the names below a dead domain, and is well: neither the same
// question sent again nor those of other names make it a dead one.
func TestUpstreamThatIsSilentForSomeNames_IsNotReported(t *testing.T) {
	for how, others := range map[string]bool{"others are answered": true, "nobody asks for others": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			u := resolvertest.NewUpstream(t)
			u.Answer(www, dns.TypeA, record)
			var log lockedLog
			f := run(t, forwarder.Config{
				Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}}},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for i := range 6 {
				name := fmt.Sprintf("n%d.dead.test.", i)
				u.Set(name, dns.TypeA, resolvertest.Rule{Drop: true})
				wg.Go(func() { _, _ = upstreamOf(t, f, wire.Root).Upstream.Exchange(ctx, question(name, dns.TypeA)) })
			}
			for tick := time.NewTicker(50 * time.Millisecond); others && ctx.Err() == nil; <-tick.C {
				mustAsk(t, f)
			}
			wg.Wait()
			if said := log.count("level="); said != 0 {
				t.Errorf("the log has\n%s", log.String())
			}
			if n := metric(t, f, "meibo_upstream_failures_total", "silent"); n != 6 {
				t.Errorf("%v silences, want one for each question", n)
			}
			if metric(t, f, "meibo_upstream_up", u.Addr().String()) != 1 {
				t.Error("the server is left out")
			}
		})
	}
}

// One that is gone is reported once, with the reason, and a refusal is no silence.
func TestUpstreamThatIsGone_IsReportedOnceWithTheReason(t *testing.T) {
	var log lockedLog
	closed := closedPort(t)
	f := run(t, forwarder.Config{
		Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{closed}}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 5 {
		_, _ = ask(t, f, question(www, dns.TypeA))
	}
	waitFor(t, "the log to have it", func() bool { return log.count("does not answer") > 0 })
	if log.count("level=") != 1 || log.count("err=") != 1 || log.count("refused") != 1 {
		t.Errorf("the log has\n%s", log.String())
	}
	if silent, network := metric(t, f, "meibo_upstream_failures_total", "silent"), metric(t, f, "meibo_upstream_failures_total", "network"); silent != 0 || network != 5 {
		t.Errorf("%v silences and %v faults of the network, want 0 and 5", silent, network)
	}
}

// metric is the value of a metric that has such a label.
func metric(t *testing.T, f *forwarder.Forwarder, name, label string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(f.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if family.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	t.Fatalf("no %s of %s", name, label)
	return 0
}

// A server that always takes 0.7 s answers, and is not dead: one question tells how slow it is.
func TestUpstreamThatIsSlow_IsNotDead(t *testing.T) {
	t.Parallel()
	u := resolvertest.NewUpstream(t)
	u.Set(www, dns.TypeA, resolvertest.Rule{Records: []string{record}, Delay: 700 * time.Millisecond})
	var log lockedLog
	f := run(t, forwarder.Config{
		Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	before := 0
	for round := range 3 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := ask(t, f, question(www, dns.TypeA)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		said := log.count("does not answer")
		if round == 0 {
			before = said // the first eight know nothing of it yet
		} else if said > before {
			t.Fatalf("a slow server is called dead:\n%s", log.text.String())
		}
	}
}

// lockedLog is what was logged.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitFor asks cond until it holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); <-tick.C {
		if cond() {
			return
		}
	}
	t.Fatalf("waited for %s in vain", what)
}

// Those that are known to be dead keep nobody waiting for the whole time, be it that
// there are no others or that these have no answer.
func TestExchange_DeadServersAreNotWaitedForLong(t *testing.T) {
	silent, failing := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
	failing.Set(www, dns.TypeA, resolvertest.Rule{Rcode: dns.RcodeServerFailure})
	for how, others := range map[string][]*resolvertest.Upstream{"alone": nil, "beside one that fails": {failing}} {
		t.Run(how, func(t *testing.T) {
			silent.SetDown(true)
			var log lockedLog
			route := forwarder.Route{Suffix: wire.Root, Servers: []netip.AddrPort{silent.Addr()}, Mode: forwarder.Strict, Timeout: longer}
			for _, u := range others {
				route.Servers = append(route.Servers, u.Addr())
			}
			f := run(t, forwarder.Config{Routes: []forwarder.Route{route}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { // probes follow its silence
				_, _ = upstreamOf(t, f, wire.Root).Upstream.Exchange(ctx, question("first.test.", dns.TypeA))
			})
			waitFor(t, "the server to be left out", func() bool { return log.count("does not answer") > 0 })
			cancel()
			wg.Wait()
			res, err := ask(t, f, question(www, dns.TypeA))
			var fail *resolver.Failure
			if others == nil && (!errors.As(err, &fail) || fail.EDE != wire.EDENoReachable) || others != nil && (err != nil || res.Answer.Rcode() != wire.RcodeServFail) {
				t.Errorf("got %v", err)
			}
			silent.Answer(www, dns.TypeA, record)
			silent.SetDown(false)
			if got, _ := mustAsk(t, f); got != good {
				t.Errorf("it is back, and the answer is %s", got)
			}
		})
	}
}

func TestExchange_FailureNamesTheUpstreams_RFC8914(t *testing.T) {
	silent := resolvertest.NewUpstream(t)
	silent.SetDown(true)
	f := start(t, forwarder.Route{Timeout: 100 * time.Millisecond}, silent)
	_, err := ask(t, f, question(www, dns.TypeA))
	var fail *resolver.Failure
	if !errors.As(err, &fail) || fail.EDE != wire.EDENoReachable || !strings.Contains(fail.Text, silent.Addr().String()) {
		t.Errorf("got %v, want a failure 22 that names %s", err, silent.Addr())
	}
	closed := closedPort(t)
	f = run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{closed}}}})
	_, err = ask(t, f, question(www, dns.TypeA))
	if !errors.As(err, &fail) || fail.EDE != wire.EDENetworkError || !strings.Contains(fail.Text, closed.String()) {
		t.Errorf("got %v, want a failure 23 that names %s", err, closed)
	}
}

func TestExchange_EndsWithItsContext(t *testing.T) {
	silent := resolvertest.NewUpstream(t)
	silent.SetDown(true)
	f := start(t, forwarder.Route{}, silent)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := upstreamOf(t, f, wire.Root).Upstream.Exchange(ctx, question(www, dns.TypeA))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestExchange_Modes(t *testing.T) {
	for _, mode := range []forwarder.Mode{forwarder.Fastest, forwarder.Strict, forwarder.All, forwarder.Random} {
		t.Run(string(mode), func(t *testing.T) {
			slow, fast := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
			slow.Set(www, dns.TypeA, resolvertest.Rule{Delay: 50 * time.Millisecond, Records: []string{record}})
			fast.Answer(www, dns.TypeA, record)
			if mode == forwarder.All { // the fast answer could be there before the slow server's turn to be asked
				fast.Set(www, dns.TypeA, resolvertest.Rule{Records: []string{record}, Mangle: func(msg []byte) []byte {
					for end := time.Now().Add(patience); len(slow.Asked(www)) < len(fast.Asked(www)) && time.Now().Before(end); {
						<-time.After(time.Millisecond)
					}
					return msg
				}})
			}
			f := start(t, forwarder.Route{Mode: mode}, slow, fast)
			const rounds = 30
			for range rounds {
				if got, _ := mustAsk(t, f); got != good {
					t.Fatalf("got %q", got)
				}
			}
			s, q := len(slow.Asked(www)), len(fast.Asked(www))
			switch mode {
			case forwarder.Strict:
				if s < rounds {
					t.Errorf("the first server was asked %d times, the second %d", s, q)
				}
			case forwarder.All:
				if s < rounds || q < rounds {
					t.Errorf("asked %d and %d times, want both each time", s, q)
				}
			case forwarder.Random:
				if s < 5 || q < 5 {
					t.Errorf("asked %d and %d times", s, q)
				}
			}
		})
	}
}

func TestAD_OnlyFromTrustedRoutes_RFC6840_5_8(t *testing.T) {
	for _, trust := range []bool{false, true} {
		u := resolvertest.NewUpstream(t)
		u.Set(www, dns.TypeA, resolvertest.Rule{AD: true, Records: []string{record}})
		_, res := mustAsk(t, start(t, forwarder.Route{TrustAD: trust}, u))
		if res.AD != trust || u.Asked(www)[0].AD != trust {
			t.Errorf("trust %v: AD asked for %v and passed on %v", trust, u.Asked(www)[0].AD, res.AD)
		}
	}
}

func TestUpdate_KeepsTheCounterOfAnUnchangedRoute(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	corp, _ := wire.ParseName("corp.example")
	lab, _ := wire.ParseName("lab.example")
	root := forwarder.Route{Suffix: wire.Root, Servers: []netip.AddrPort{a}}
	f, err := forwarder.New(forwarder.Config{Routes: []forwarder.Route{root, {Suffix: corp, Servers: []netip.AddrPort{a}}, {Suffix: lab, Servers: []netip.AddrPort{a}}}})
	if err != nil {
		t.Fatal(err)
	}
	before := map[wire.Name]resolver.Mount{}
	for _, s := range []wire.Name{wire.Root, corp, lab} {
		before[s] = upstreamOf(t, f, s)
	}
	if err := f.Update([]forwarder.Route{root, {Suffix: corp, Servers: []netip.AddrPort{b}}}); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[wire.Name]uint64{wire.Root: 0, corp: 1, lab: 1} {
		if got := before[s].Route.Load(); got != want {
			t.Errorf("counter of %s is %d, want %d", s, got, want)
		}
	}
	if upstreamOf(t, f, corp).Route == before[corp].Route {
		t.Error("a changed route kept its counter: what the old servers say now would be kept for the new")
	}
	if upstreamOf(t, f, wire.Root).Upstream != before[wire.Root].Upstream {
		t.Error("the unchanged route was replaced")
	}
	if err := f.Update([]forwarder.Route{{Suffix: corp}}); err == nil {
		t.Error("a route without servers was taken")
	}
	if upstreamOf(t, f, wire.Root).Route.Load() != 0 {
		t.Error("a refused update changed something")
	}
}

func TestNew_RefusesWhatCantWork(t *testing.T) {
	self := netip.MustParseAddrPort("127.0.0.1:53")
	for name, tc := range map[string]struct {
		cfg  forwarder.Config
		want string
	}{
		"no suffix":   {forwarder.Config{Routes: []forwarder.Route{{Servers: []netip.AddrPort{self}}}}, "suffix"},
		"no server":   {forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root}}}, "no server"},
		"only itself": {forwarder.Config{Self: []netip.AddrPort{self}, Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{self}}}}, "no server"},
		"itself by wildcard": {forwarder.Config{Self: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")},
			Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{self}}}}, "no server"},
		"mode": {forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{self}, Mode: "best"}}}, "fastest"},
		"twice": {forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{self}},
			{Suffix: wire.Root, Servers: []netip.AddrPort{self}}}}, "two routes"},
		"timeout": {forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{self}, Timeout: -1}}}, "negative"},
	} {
		if _, err := forwarder.New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error about %q", name, err, tc.want)
		}
	}
}

func TestLoop_IsFoundAndLeftOut(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	var probe resolvertest.Asked
	waitFor(t, "a loop probe", func() bool {
		for _, a := range u.Asked("") {
			if strings.HasSuffix(a.Name, ".loop.meibo.internal.") {
				probe = a
				return true
			}
		}
		return false
	})
	var zone resolver.Zone
	for _, m := range f.Mounts() {
		if m.Zone != nil {
			zone = m.Zone
		}
	}
	if _, outcome := zone.Answer(question("1.0123456789abcdef.loop.meibo.internal.", dns.TypeTXT)); outcome != resolver.NotMine {
		t.Errorf("somebody else's probe: %v, want it passed on", outcome)
	}
	// The upstream sends the probe back to us while it is being answered.
	waitFor(t, "the loop to count", func() bool {
		if _, outcome := zone.Answer(question(probe.Name, dns.TypeTXT)); outcome != resolver.Answered {
			t.Fatalf("our probe: %v", outcome)
		}
		return upstreamOf(t, f, wire.Root).Upstream.(resolver.Health).Down()
	})
	_, err := ask(t, f, question(www, dns.TypeA))
	var fail *resolver.Failure
	if !errors.As(err, &fail) {
		t.Errorf("got %v, want a failure", err)
	}
}
