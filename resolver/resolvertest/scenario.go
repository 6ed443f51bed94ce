package resolvertest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/txtar"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/wire"
)

// RunScenarios runs every *.txtar file of dir as a subtest.
//
// A file is a txtar archive. Its files are what the upstream says: named by the
// question ("www.example. A"), they hold a response code, words that say how
// ("trunc", "ad", "ede 15"), and records. The archive's comment is the script, one
// command a line, # after a space or at the beginning starts a comment:
//
//	query NAME TYPE [+do] [+cd] [+ad] [+nord] [+noedns] [+tcp]
//	queries N NAME TYPE           N clients at once; the last reply is looked at
//	expect WHAT                   of the last reply:
//	    NOERROR (any code) | answer RECORD | authority RECORD | answers N |
//	    ttl N | ede N | no ede | flag F | no flag F | took D | case NAME | nothing
//	expect asked N                questions the upstream got since the last such line
//	advance D                     time passes
//	upstream up | silent | refused | dead | slow D
//	use NAME TYPE FILE            from now on FILE is what is said to the question
//	route changed | flush
func RunScenarios(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios in %s (%v)", dir, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			RunScenario(t, ar)
		})
	}
}

// RunScenario runs one archive in a bubble of virtual time.
func RunScenario(t *testing.T, ar *txtar.Archive) {
	synctest.Test(t, func(t *testing.T) {
		s := newScenario(t, ar)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.resolver.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		for i, line := range strings.Split(string(ar.Comment), "\n") {
			line, _, _ = strings.Cut(" "+line, " #")
			if fields := strings.Fields(line); len(fields) > 0 {
				if err := s.do(fields); err != nil {
					t.Fatalf("line %d: %s: %v\nlast reply: %s", i+1, strings.TrimSpace(line), err, Text(s.reply))
				}
			}
		}
	})
}

// scenario is a script being run.
type scenario struct {
	t        *testing.T
	upstream *Memory
	cache    *cache.Cache
	resolver *resolver.Resolver
	files    map[string]Rule
	asked    int // upstream questions already accounted for
	reply    *dns.Msg
	took     time.Duration
}

func newScenario(t *testing.T, ar *txtar.Archive) *scenario {
	t.Helper()
	s := &scenario{t: t, upstream: NewMemory(), files: map[string]Rule{}}
	for _, f := range ar.Files {
		rule, err := parseRule(string(f.Data))
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		s.files[f.Name] = rule
		if name, typ, ok := strings.Cut(f.Name, " "); ok {
			number, known := wire.ParseType(typ)
			if !known {
				t.Fatalf("%s: unknown type", f.Name)
			}
			s.upstream.Set(name, number, rule)
		}
	}
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.cache = c
	s.resolver, err = resolver.New(resolver.Config{
		Cache: c,
		Now:   func() time.Duration { return time.Since(began) + time.Hour },
		Table: resolver.Table{Mounts: []resolver.Mount{s.upstream.Mount(wire.Root)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parseRule reads what an archive's file says.
func parseRule(text string) (Rule, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	head := strings.Fields(lines[0])
	if len(head) == 0 {
		return Rule{}, fmt.Errorf("the first line must name a response code")
	}
	rcode, ok := dns.StringToRcode[head[0]]
	if !ok {
		return Rule{}, fmt.Errorf("%q is no response code", head[0])
	}
	r := Rule{Rcode: rcode}
	for i := 1; i < len(head); i++ {
		switch head[i] {
		case "trunc":
			r.Truncate = true
		case "ad":
			r.AD = true
		case "ede":
			i++
			n, err := strconv.ParseUint(head[min(i, len(head)-1)], 10, 16)
			if err != nil {
				return Rule{}, err
			}
			r.EDE = uint16(n)
		default:
			return Rule{}, fmt.Errorf("unknown word %q", head[i])
		}
	}
	for _, l := range lines[1:] {
		if l = strings.TrimSpace(l); l != "" {
			r.Records = append(r.Records, l)
		}
	}
	return r, nil
}

func (s *scenario) do(f []string) error {
	switch {
	case f[0] == "query" && len(f) >= 3:
		return s.query(1, f[1], f[2], f[3:])
	case f[0] == "queries" && len(f) >= 4:
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		return s.query(n, f[2], f[3], f[4:])
	case f[0] == "expect" && len(f) >= 2:
		return s.expect(f[1:])
	case f[0] == "advance" && len(f) == 2:
		d, err := time.ParseDuration(f[1])
		time.Sleep(d)
		return err
	case f[0] == "upstream" && len(f) >= 2:
		return s.setUpstream(f[1:])
	case f[0] == "use" && len(f) == 4:
		rule, ok := s.files[f[3]]
		if !ok {
			return fmt.Errorf("no file %q", f[3])
		}
		typ, ok := wire.ParseType(f[2])
		if !ok {
			return fmt.Errorf("unknown type")
		}
		s.upstream.Set(f[1], typ, rule)
	case f[0] == "route" && f[1] == "changed":
		s.upstream.Route.Add(1)
	case f[0] == "flush":
		s.cache.Flush()
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

func (s *scenario) setUpstream(f []string) error {
	states := map[string]State{"up": Up, "silent": Silent, "refused": Refused, "dead": Dead}
	if st, ok := states[f[0]]; ok {
		s.upstream.SetState(st)
		s.upstream.SetDelay(0)
		return nil
	}
	if f[0] != "slow" || len(f) != 2 {
		return fmt.Errorf("unknown state")
	}
	d, err := time.ParseDuration(f[1])
	s.upstream.SetState(Up)
	s.upstream.SetDelay(d)
	return err
}

// query asks n times at once and keeps one of the replies.
func (s *scenario) query(n int, name, typ string, options []string) error {
	t, ok := wire.ParseType(typ)
	if !ok {
		return fmt.Errorf("unknown type")
	}
	req, tcp := Query(name, t), false
	for _, o := range options {
		switch o {
		case "+do":
			req.IsEdns0().SetDo()
		case "+cd":
			req.CheckingDisabled = true
		case "+ad":
			req.AuthenticatedData = true
		case "+nord":
			req.RecursionDesired = false
		case "+noedns":
			req.Extra = nil
		case "+tcp":
			tcp = true
		default:
			return fmt.Errorf("unknown option %s", o)
		}
	}
	began := time.Now()
	replies := make([]*dns.Msg, n)
	var wg sync.WaitGroup
	for i := range replies {
		req := req.Copy()
		req.Id = uint16(i + 1)
		wg.Go(func() { replies[i] = Ask(s.t, s.resolver, req, tcp) })
	}
	wg.Wait()
	s.took = time.Since(began)
	for i, m := range replies {
		if m == nil || m.Id != uint16(i+1) {
			return fmt.Errorf("client %d got no reply of its own: %s", i+1, Text(m))
		}
	}
	s.reply = replies[n-1]
	return nil
}

func (s *scenario) expect(f []string) error {
	rest := strings.Join(f[1:], " ")
	switch f[0] {
	case "asked":
		now := s.upstream.Asked()
		n := now - s.asked
		s.asked = now
		return equal(rest, strconv.Itoa(n))
	case "took":
		return equal(rest, s.took.String())
	}
	m := s.reply
	if m == nil {
		return fmt.Errorf("there is no reply yet")
	}
	switch f[0] {
	case "answer":
		return contains(Records(m.Answer), rest)
	case "authority":
		return contains(Records(m.Ns), rest)
	case "answers":
		return equal(rest, strconv.Itoa(len(m.Answer)))
	case "nothing":
		return equal("[]", fmt.Sprint(Records(slices.Concat(m.Answer, m.Ns))))
	case "ttl":
		for _, rr := range slices.Concat(m.Answer, m.Ns) {
			if err := equal(rest, strconv.FormatUint(uint64(rr.Header().Ttl), 10)); err != nil {
				return err
			}
		}
		return nil
	case "ede":
		code, _, ok := EDE(m)
		return equal(rest+" true", fmt.Sprint(code, ok))
	case "flag":
		return contains(strings.Fields(flagText(m)), rest)
	case "case":
		return equal(rest, m.Question[0].Name)
	case "no":
		if _, _, ok := EDE(m); rest == "ede" {
			return equal("false", fmt.Sprint(ok))
		}
		if s.expect(f[1:]) == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	}
	return equal(f[0], dns.RcodeToString[m.Rcode])
}

func equal(want, got string) error {
	if want != got {
		return fmt.Errorf("got %s", got)
	}
	return nil
}

func contains(list []string, want string) error {
	if !slices.Contains(list, want) {
		return fmt.Errorf("got %s", strings.Join(list, "; "))
	}
	return nil
}
