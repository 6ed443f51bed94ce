package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// TTLs are what administrators let dnsmasq keep Consul's answers for, in seconds.
var ttls = []int{0, 5, 30, 60}

const (
	ttlHosts = 300             // are simulated; what they do is scaled to the fleet
	ttlFor   = 5 * time.Minute // of simulated time are counted
)

// TTLCache is a fleet whose hosts have a cache that keeps answers for a time, whatever becomes of them.
type TTLCache struct {
	TTL        int     // seconds
	Queries    float64 // to the servers, each second, from the whole fleet: simulated
	Cores      float64 // of the servers, at what a question costs them: computed
	P50, P99   float64 // seconds from a change until a host that uses the service would answer with it, if asked: simulated
	Max        float64
	StaleShare float64 // of lookups: simulated
}

// ttls simulates the same lookups and the same changes with caches that know nothing of changes.
func (m *measurement) ttls() {
	for _, ttl := range ttls {
		c := simulateTTL(m.f, time.Duration(ttl)*time.Second, float64(m.o.Lookups), m.o.Changes, 1-m.o.Unknown-m.o.Forwarded, m.o.Unknown)
		c.Cores = c.Queries * m.result.DirectMicros / 1e6
		m.result.TTLs = append(m.result.TTLs, c)
	}
}

// simulateTTL plays ttlHosts hosts of the fleet, in simulated time. What they ask for is what players ask for.
func simulateTTL(f fleet, ttl time.Duration, lookups, rate, known, unknown float64) TTLCache {
	z, list, others := newZipf(f.Services), ranks(min(f.Uses, f.Services)), ranks(otherNames)
	random := rand.New(rand.NewPCG(7, 7))
	hosts := min(f.Hosts, ttlHosts)
	warm := max(ttl, time.Second)
	end := warm + ttlFor

	// When each service changes.
	changed := make([][]time.Duration, f.Services)
	for at := time.Duration(0); at < end; at += time.Duration(random.ExpFloat64() / rate * float64(time.Second)) {
		s := random.IntN(f.Services)
		changed[s] = append(changed[s], at)
	}
	var misses, asked, stale float64
	took := newHistogram()
	for h := range hosts {
		uses := f.uses(h, z)
		fetched := make([]time.Duration, len(uses))
		seen := make([]int, len(uses)) // changes that the host answers with
		old := make([]int, len(uses))  // changes that it could know of
		for i := range fetched {
			fetched[i] = math.MinInt64 / 2
		}
		absent := make(map[int]time.Duration)
		interval := float64(time.Second) / (lookups * (known + unknown))
		for at := time.Duration(0); at < end; at += time.Duration(random.ExpFloat64() * interval) {
			count := at >= warm
			if random.Float64()*(known+unknown) < unknown {
				name := int(others[random.Uint32()>>16])
				if since, ok := absent[name]; !ok || at-since >= ttl {
					absent[name] = at
					if count {
						misses++
					}
				}
				continue
			}
			i := int(list[random.Uint32()>>16])
			events := changed[uses[i]]
			for ; old[i] < len(events) && events[old[i]] <= at; old[i]++ {
				if e := events[old[i]]; e >= warm {
					_ = took.RecordValue(max(1, (fetched[i] + ttl - e).Microseconds()))
				}
			}
			if at-fetched[i] >= ttl {
				fetched[i], seen[i] = at, old[i]
				if count {
					misses++
				}
			}
			if count {
				asked++
				if seen[i] < old[i] {
					stale++
				}
			}
		}
	}
	seconds := ttlFor.Seconds()
	c := TTLCache{TTL: int(ttl.Seconds()), Queries: misses / seconds / float64(hosts) * float64(f.Hosts), StaleShare: stale / asked}
	if ttl > 0 {
		c.P50, c.P99, c.Max = ms(took, 50)/1000, ms(took, 99)/1000, ms(took, 100)/1000
	}
	return c
}
