package wire

import "encoding/binary"

// cut is one rendering of an answer of which not everything goes.
type cut struct {
	a *Answer
	r *Render

	// Of the answers, [0, whole) stay, and then of the set at whole, if there is one, n records from start on, each step
	// records after the one before, around its end. Neighbours would do for records of equal size too, but then the same
	// few would always be seen together, and those that die together are neighbours as often as not.
	whole          int
	set            set // n is 0: none
	start, step, n int

	noExpendable, noOthers, noAuthority bool
	tc                                  bool
}

// appendCut appends what of the answer fits room bytes and policy; the OPT, for which the caller reserved room, follows.
func (a *Answer) appendCut(dst []byte, q *Query, r *Render, room, most int) []byte {
	c := cut{a: a, r: r}
	c.limitAnswers(most)
	c.fit(room)
	base := len(dst)
	dst = append(dst, a.msg[:a.end()]...)
	dst, sent := c.write(dst, base)
	tc := a.flags & flagTC
	if c.tc && !a.policy.noTC || a.ans() > 0 && sent == 0 {
		tc = flagTC
	}
	a.putHeader(dst[base:], q, r, tc)
	return appendReplyOPT(dst, base, q, a.rcode, q.DO && a.EDNS(), r)
}

// limitAnswers keeps so many answers.
func (c *cut) limitAnswers(most int) {
	a := c.a
	for c.whole < a.ans() {
		s := a.setAt(c.whole)
		switch {
		case s.n <= most && a.recType(c.whole) != TypeCNAME:
			most -= s.n
		case s.n > 1:
			c.keep(s, most)
			return
		case a.recType(c.whole) != TypeCNAME:
			return
		}
		c.whole += s.n
	}
}

// keep keeps n records of a set, of those before it all, and nothing after it.
func (c *cut) keep(s set, n int) {
	c.whole, c.set, c.start, c.n = s.first, s, c.r.window(s.n), n
	if c.step = 1; c.a.recs[s.first].is(even) {
		c.step = c.r.stride(s.n) // windowFit has looked at windows only where sizes differ
	}
}

// fit leaves out records, the least missed first, until the rest fits room bytes.
func (c *cut) fit(room int) {
	a := c.a
	room -= a.end()
	if c.bytes() <= room {
		return
	}
	c.noExpendable = true
	if c.bytes() <= room {
		return
	}
	c.noOthers = true
	if a.ans() > 0 && !a.Negative() {
		c.noAuthority = true // it only says who else could be asked
	} else if c.authorityBytes() > room {
		c.noAuthority, c.tc = true, true
	}
	if c.bytes() > room {
		c.fitAnswers(room - c.authorityBytes())
	}
}

// fitAnswers keeps as many answers, in their order, as fit room bytes with their glue.
func (c *cut) fitAnswers(room int) {
	a := c.a
	limit, limitSet, limitN := c.whole, c.set, c.n
	c.whole, c.set, c.n, c.tc = 0, set{}, 0, true
	for c.whole < limit+limitSet.n {
		s := a.setAt(c.whole)
		if c.dropped(c.whole) {
			c.whole += s.n
			continue
		}
		n := s.n
		if s == limitSet {
			n = limitN
		}
		if n = a.windowFit(s, room, n); n < s.n {
			if n > 0 {
				c.keep(s, n)
			}
			return
		}
		room -= c.setBytes(s)
		c.whole += s.n
	}
}

// windowFit returns how many records in a row of a set, at most n, fit room bytes wherever they begin. It asks for the worst
// beginning, not the client's: else short records would be sent more often than long ones.
func (a *Answer) windowFit(s set, room, n int) int {
	if unit := a.unitOf(s); unit > 0 {
		return min(n, max(room, 0)/unit)
	}
	// For each beginning the window's end is at or after that of the beginning before it.
	size, count := 0, 0
	for from := range s.n {
		for count < n {
			next := a.unit(s.first + (from+count)%s.n)
			if size+next > room {
				break
			}
			size += next
			count++
		}
		if count < n {
			n = count
		}
		if n == 0 {
			return 0
		}
		// count == n here: drop the first of the window to go on.
		size -= a.unit(s.first + from)
		count--
	}
	return n
}

// bytes returns how many bytes the records take that stay by now.
func (c *cut) bytes() int {
	a := c.a
	if c.whole == a.ans() {
		return c.bytesOfAll()
	}
	total := c.authorityBytes()
	for i := range c.whole {
		total += c.unitBytes(i)
	}
	for i := range c.n {
		total += c.unitBytes(c.nth(i, 0))
	}
	if !c.noOthers {
		for i := a.glue(); i < len(a.recs); i++ {
			if !c.dropped(i) {
				total += a.recBytes(i)
			}
		}
	}
	return total
}

// bytesOfAll is bytes when every answer stays.
func (c *cut) bytesOfAll() int {
	a := c.a
	total := len(a.msg) - a.end()
	if c.noAuthority && a.auth() > a.ans() {
		total -= a.recEnd(a.auth()-1) - int(a.recs[a.ans()].off)
	}
	switch {
	case c.noOthers:
		total -= a.spareBytes()
	case c.noExpendable:
		total -= a.expendableBytes
	}
	return total
}

// nth returns the i-th record that stays of the cut set, when the first of them is the one at turn.
func (c *cut) nth(i, turn int) int {
	return c.set.first + (c.start+(turn+i)%c.n*c.step)%c.set.n
}

func (c *cut) dropped(i int) bool { return c.noExpendable && c.a.recs[i].is(expendable) }

func (c *cut) authorityBytes() int {
	a := c.a
	if c.noAuthority || a.auth() == a.ans() {
		return 0
	}
	return a.recEnd(a.auth()-1) - int(a.recs[a.ans()].off)
}

// unitBytes returns the bytes of answer i with the glue that it takes along.
func (c *cut) unitBytes(i int) int {
	if c.dropped(i) {
		return 0
	}
	a := c.a
	n := a.unit(i)
	if c.noExpendable {
		return n
	}
	for g, past := a.glueOf(i); g < past; g++ {
		if a.recs[g].is(expendable) {
			n += a.recBytes(g)
		}
	}
	return n
}

func (c *cut) setBytes(s set) int {
	n := 0
	for i := range s.n {
		n += c.unitBytes(s.first + i)
	}
	return n
}

// write appends the records that stay and their counts; the message begins at base. It returns how many answers went.
func (c *cut) write(dst []byte, base int) (_ []byte, answers int) {
	a := c.a
	var authority, additional int
	answersAt := len(dst)
	c.eachAnswer(func(i int) {
		dst = c.copyRecord(dst, i)
		answers++
	})
	if !c.noAuthority {
		for i := a.ans(); i < a.auth(); i++ {
			dst = c.copyRecord(dst, i)
			authority++
		}
	}
	// The answers a second time, for their glue: where each went follows from the order.
	at := answersAt - base
	c.eachAnswer(func(i int) {
		for g, past := a.glueOf(i); g < past; g++ {
			if c.dropped(g) {
				continue
			}
			start := len(dst)
			dst = c.copyRecord(dst, g)
			additional++
			if name := a.pointsAt(g); name > 0 {
				binary.BigEndian.PutUint16(dst[start:], 0xc000|uint16(at+name))
			}
		}
		at += a.recBytes(i)
	})
	for i := a.glue(); i < len(a.recs) && !c.noOthers; i++ {
		if !c.dropped(i) {
			dst = c.copyRecord(dst, i)
			additional++
		}
	}
	putCounts(dst[base:], 1, answers, authority, additional)
	return dst, answers
}

// eachAnswer calls f with the answers that stay, sets turned to their starts.
func (c *cut) eachAnswer(f func(i int)) {
	var s set
	for i := 0; i < c.whole; i += s.n {
		s = c.a.setAt(i)
		turn := c.r.start(s.n)
		for j := range s.n {
			if k := i + (turn+j)%s.n; !c.dropped(k) {
				f(k)
			}
		}
	}
	if c.n == 0 {
		return
	}
	turn := c.r.start(c.n)
	for j := range c.n {
		f(c.nth(j, turn))
	}
}

// copyRecord appends record i with the TTL to show.
func (c *cut) copyRecord(dst []byte, i int) []byte {
	a, rec := c.a, &c.a.recs[i]
	start := len(dst)
	dst = append(dst, a.msg[rec.off:a.recEnd(i)]...)
	if c.r.touchesTTL() {
		ttl := dst[start+int(rec.owner)+4:]
		binary.BigEndian.PutUint32(ttl, c.r.ttl(binary.BigEndian.Uint32(ttl)))
	}
	return dst
}
