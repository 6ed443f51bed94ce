package wire

// Reply is what Pack makes an Answer of.
type Reply struct {
	Rcode uint16 // 0..15
	AA    bool
	RRs   []RR
	// MaxAnswers is the most Answer records of a rendering, over any transport; 0: no limit. CNAME records don't count,
	// they lead to answers. Policy never sets TC.
	MaxAnswers int
	// MaxUDP is the same for UDP clients whose limit is 512 bytes; 0: no limit.
	MaxUDP int
	// NoTC keeps TC clear when records are cut for size (Consul's enable_truncate = false).
	NoTC bool
	// Rotate starts each rendering at another record of a set, and lets a hash of the client choose which records stay
	// when a set must be cut. Otherwise the order is kept and the last go.
	Rotate bool
}

// Render says how one client gets an Answer.
type Render struct {
	Age       uint32 // seconds taken off every TTL, which stays at least 1 unless it was 0
	FixTTL    uint32 // with UseFixTTL, every TTL (stale answers)
	UseFixTTL bool
	Pick      uint32 // random, for the start of the rotation
	Client    uint32 // hash of the client's address and port: chooses which records stay when the answer is cut
	EDE       uint16 // Extended DNS Error, if the client sent an OPT; 0: the answer's own, if it has one; EDEOther sends 0
	EDEText   string // at most 160 bytes of it are sent
	AD        bool
}
