package consul

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/wire"
)

const (
	// maxHosts bounds the host names that one SRV answer follows.
	maxHosts = 64
	// maxParallel bounds how many of them are followed at a time.
	maxParallel = 8
	// lateHost is how long one of several host names is waited for before the next one
	// is asked too: as long as a dead upstream may cost.
	lateHost = 400 * time.Millisecond
)

// chased is what was found under a host name.
type chased struct {
	rcode uint16
	// records of the answer section; denial is the SOA when there are none.
	records []wire.RR
	denial  []wire.RR
	glue    []wire.RR
	// life bounds how long it may be kept when bounded is true; 0 then: not at
	// all.
	life    time.Duration
	bounded bool
	ages    bool
	failed  bool
}

// followFirst asks for what the answer's type finds under host names, one after the
// other: the next one when one has nothing, or is late, while those before may still
// answer. It returns the first that has records, else the best. The answer lives no
// longer than what was heard.
func (b *builder) followFirst(hosts []wire.Name) (wire.Name, chased) {
	types := []wire.Type{b.q.Type}
	if b.q.Type == wire.TypeANY {
		types = []wire.Type{wire.TypeA, wire.TypeAAAA}
	}
	type heard struct {
		host wire.Name
		chased
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	came := make(chan heard, len(hosts))
	asked, late := 0, time.NewTimer(lateHost)
	defer late.Stop()
	next := func() {
		if asked < len(hosts) {
			host := hosts[asked]
			asked++
			wg.Go(func() { came <- heard{host, b.follow(ctx, host, types...)} })
			late.Reset(lateHost)
		}
	}
	next()
	var best heard
	for done := 0; done < asked; {
		select {
		case <-late.C:
			next()
		case h := <-came:
			done++
			b.boundBy(h.chased)
			if done == 1 || h.isBetter(&best.chased, b.q.Type) {
				best = h
			}
			if best.has(b.q.Type) {
				return best.host, best.chased
			}
			next()
		}
	}
	return best.host, best.chased
}

// has reports whether records of the type, or any for ANY, were found.
func (c *chased) has(typ wire.Type) bool {
	return slices.ContainsFunc(c.records, func(rr wire.RR) bool {
		return rr.Type == typ || typ == wire.TypeANY && rr.Type != wire.TypeCNAME
	})
}

// isBetter tells whether c is more to point to than d: it has records of the type,
// or its name exists at least, so that one name that is gone doesn't deny the rest.
func (c *chased) isBetter(d *chased, typ wire.Type) bool {
	rank := func(c *chased) int {
		switch {
		case c.has(typ):
			return 3
		case c.failed:
			return 1
		case c.rcode == wire.RcodeSuccess:
			return 2
		}
		return 0
	}
	return rank(c) > rank(d)
}

// spell writes the host's name in what was found under it as it is written where
// it is pointed to; whoever asked first has left his own spelling.
func (c *chased) spell(host wire.Name) {
	for _, rrs := range []*[]wire.RR{&c.records, &c.glue} {
		*rrs = slices.Clone(*rrs)
		for i := range *rrs {
			if rr := &(*rrs)[i]; rr.Owner.Equal(host) {
				rr.Owner = host
			}
		}
	}
}

// addFound adds what was found under a host name to an answer that points to it.
// The rcode is that of the end of the chain (RFC 6604 section 2.1). When the host
// couldn't be asked the pointer stands alone and isn't kept.
func (b *builder) addFound(c chased) {
	if c.failed {
		return
	}
	b.reply.Rcode = c.rcode
	for _, rr := range append(c.records, c.denial...) {
		b.add(rr)
	}
}

// boundBy makes the answer live no longer than what was followed.
func (b *builder) boundBy(c chased) {
	b.deps[0] = b.any
	switch {
	case c.failed || (c.bounded && c.life == 0):
		b.noStore = true
	case c.bounded:
		b.bound(c.life)
	}
	b.ages = b.ages || c.ages
}

// followHosts follows the host names of the instances, each once, for the
// addresses of SRV targets.
func (b *builder) followHosts(visible []catalog.Instance) map[wire.Name]chased {
	found := make(map[wire.Name]chased)
	for _, in := range visible {
		host := placeOf(in, b.q.Type, b.owner).host
		if host != "" && len(found) < maxHosts {
			found[host.Lower()] = chased{}
		}
	}
	if len(found) == 0 {
		return nil
	}
	if b.chase == nil {
		b.needsChase = true
		return nil
	}
	b.followAll(found)
	for _, c := range found {
		b.boundBy(c)
	}
	return found
}

// followAll fills in what is found under the hosts.
func (b *builder) followAll(found map[wire.Name]chased) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards found
		slots = make(chan struct{}, maxParallel)
		hosts []wire.Name
	)
	for host := range found {
		hosts = append(hosts, host)
	}
	for _, host := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c := b.follow(b.ctx, host, wire.TypeA, wire.TypeAAAA)
			for _, rr := range c.records {
				rr.Section = wire.Additional
				c.glue = append(c.glue, rr)
			}
			mu.Lock()
			defer mu.Unlock()
			found[host] = c
		})
	}
	wg.Wait()
}

// follow asks for a host name's records of each type. The pointers on the way
// come once, before the rest.
func (b *builder) follow(ctx context.Context, host wire.Name, types ...wire.Type) chased {
	var all chased
	answered := 0
	for _, typ := range types {
		result, err := b.chase(ctx, wire.NewQuery(host, typ))
		if err != nil || result.Answer == nil {
			continue
		}
		rcode := result.Answer.Rcode()
		if rcode != wire.RcodeSuccess && rcode != wire.RcodeNXDomain {
			continue
		}
		answered++
		all.rcode = rcode
		all.ages = all.ages || result.Ages
		all.shorten(b.lifeOf(result))
		all.collect(result.Answer, typ)
	}
	all.failed = answered == 0
	if answered < len(types) {
		all.shorten(0, false) // half an answer is not kept
	}
	return all
}

// lifeOf is how long a result that was followed is good by time, 0 means until
// a counter moves; keep is false when it is good for this one answer only.
func (b *builder) lifeOf(r resolver.Result) (life time.Duration, keep bool) {
	// What lives until a counter moves moves with ours if it is of this view.
	// The counters of others (hosts files) the answer has no room for: it then
	// lives by TTL, as what comes from upstream does.
	ours := r.Deps[1].Counter != nil && r.Deps[1].Counter == b.deps[1].Counter
	if r.NoStore || r.Life > 0 || ours {
		return r.Life, !r.NoStore
	}
	ttl, ok := r.Answer.NegativeTTL()
	if !ok {
		ttl, ok = r.Answer.MinTTL()
	}
	return time.Duration(ttl) * time.Second, ok && ttl > 0
}

// shorten notes how long an answer that was followed may be kept.
func (c *chased) shorten(life time.Duration, keep bool) {
	switch {
	case !keep:
		c.life, c.bounded = 0, true
	case life > 0 && (!c.bounded || life < c.life):
		c.life, c.bounded = life, true
	}
}

// collect takes over the records of an answer that belong to the chain and its
// end, and their life where they age.
func (c *chased) collect(a *wire.Answer, typ wire.Type) {
	var records, denial []wire.RR
	for _, rr := range a.RRs() {
		switch {
		case rr.Section == wire.Answers && rr.Type == typ:
			records = append(records, rr)
		case rr.Section == wire.Answers && rr.Type == wire.TypeCNAME && !has(c.records, rr):
			c.records = append(c.records, rr)
		case rr.Section == wire.Authority && rr.Type == wire.TypeSOA:
			denial = append(denial, rr)
		}
	}
	c.records = append(c.records, records...)
	// One type's absence is not told when the other's records are there.
	c.denial = denial
	if slices.ContainsFunc(c.records, func(rr wire.RR) bool { return rr.Type != wire.TypeCNAME }) {
		c.denial = nil
	}
}

func has(rrs []wire.RR, rr wire.RR) bool {
	return slices.ContainsFunc(rrs, func(o wire.RR) bool {
		return o.Type == rr.Type && o.Owner.Equal(rr.Owner) && bytes.Equal(o.Data, rr.Data)
	})
}
