package resolver

import "meibo/resolver/wire"

// Names of the CHAOS class that servers answer (RFC 4892), in wire form.
const (
	nameVersionBind   = "\x07version\x04bind\x00"
	nameVersionServer = "\x07version\x06server\x00"
	nameIDServer      = "\x02id\x06server\x00"
	nameHostnameBind  = "\x08hostname\x04bind\x00"
)

// otherClass answers who we are in class CHAOS and refuses every other class:
// nothing of them is forwarded or mixed with class IN.
func (r *Resolver) otherClass(q *wire.Query, dst []byte) []byte {
	text := ""
	if q.Class == wire.ClassCH && (q.Type == wire.TypeTXT || q.Type == wire.TypeANY) {
		switch string(q.Name()) {
		case nameVersionBind, nameVersionServer:
			text = r.cfg.Version
		case nameIDServer, nameHostnameBind:
			text = r.cfg.ServerID
		}
	}
	if text == "" {
		return r.errorReply(dst, q, wire.RcodeRefused, wire.EDENotSupported, "only class IN is served")
	}
	owner := wire.Name(q.Name())
	a, err := wire.Pack(q, &wire.Reply{AA: true, RRs: []wire.RR{{Owner: owner, Type: wire.TypeTXT, Data: wire.TXT(text)}}})
	if err != nil {
		return r.errorReply(dst, q, wire.RcodeServFail, wire.EDEOther, err.Error())
	}
	return a.Append(dst, q, wire.Render{})
}
