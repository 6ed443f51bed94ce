package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
)

// The marks that hosts put on what they carry for one another. They mean nothing
// on a request of a client, and are taken off.
const (
	markPrefix = "X-Meibo-"

	headerNode             = markPrefix + "Scope-Node"
	headerDatacenter       = markPrefix + "Scope-Datacenter"
	headerToken            = markPrefix + "Scope-Token"
	headerHops             = markPrefix + "Hops"
	headerRequest          = markPrefix + "Request"
	headerOriginID         = markPrefix + "Origin-Id"
	headerOriginName       = markPrefix + "Origin-Name"
	headerOriginDatacenter = markPrefix + "Origin-Datacenter"
	headerTo               = markPrefix + "To"
	headerFrom             = markPrefix + "From"    // link address of who asks
	headerOutcome          = markPrefix + "Outcome" // may be asked for again
	headerError            = markPrefix + "Error"   // what kind, final

	toTheLeader = "leader"
)

// Values of headerOutcome.
const (
	outcomeNoLeader  = "no-leader"  // did not happen
	outcomeNoServers = "no-servers" // did not happen
	outcomeUnknown   = "unknown"    // may have happened
)

// Bounds of calls, in bytes.
const (
	maxCall   = 1 << 20
	maxAnswer = 64 << 20 // of a write or a call
)

// setMark sets a header whose value may hold anything.
func setMark(h http.Header, key, value string) {
	if value != "" {
		h.Set(key, url.QueryEscape(value))
	}
}

// getMark reads what setMark wrote; what it did not write is empty.
func getMark(h http.Header, key string) string {
	v, err := url.QueryUnescape(h.Get(key))
	if err != nil {
		return ""
	}
	return v
}

// mark puts on a request what the next host must know of the way it came.
func (j job) mark(h http.Header) {
	h.Set(headerHops, strconv.Itoa(j.hops+1))
	if j.hops > 0 {
		setMark(h, headerOriginID, j.origin.ID)
		setMark(h, headerOriginName, j.origin.Name)
		setMark(h, headerOriginDatacenter, j.origin.Datacenter)
	}
	if j.write && j.request.Client != "" {
		h.Set(headerRequest, j.request.Client+":"+strconv.FormatUint(j.request.Counter, 10))
	}
}

func parseRequestID(s string) (catalog.RequestID, bool) {
	client, counter, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(counter, 10, 64)
	if !ok || err != nil || !catalog.IsUUID(client) {
		return catalog.RequestID{}, false
	}
	return catalog.RequestID{Client: client, Counter: n}, true
}

// ErrNotAllowed means that a host asked for what is not its to ask.
var ErrNotAllowed = errors.New("not allowed")

// kinds are errors that are told by their kind and come back as what they were.
var kinds = map[string]error{
	"busy":      consensus.ErrBusy,
	"disk-full": consensus.ErrDiskFull,
	"too-large": consensus.ErrTooLarge,
	"refused":   ErrNotAllowed,
}

// kindCatalog is the kind of a *catalog.Error.
const kindCatalog = "catalog"

// outcomeOf says whether what failed with err may be asked for again; empty: no.
func outcomeOf(err error) string {
	var refusal *catalog.Error
	switch {
	case err == nil, errors.As(err, &refusal):
		return ""
	case errors.Is(err, consensus.ErrUnknownOutcome):
		return outcomeUnknown
	case errors.Is(err, errNoServers):
		return outcomeNoServers
	case errors.Is(err, ErrNoLeader), errors.Is(err, consensus.ErrNoLeader):
		return outcomeNoLeader
	case errors.Is(err, context.Canceled): // this host stops
		return outcomeUnknown
	}
	return ""
}

// markedOutcome is the error that an answer stands for which is not final.
func markedOutcome(res *http.Response, write bool) error {
	switch o := res.Header.Get(headerOutcome); {
	case o == outcomeNoLeader, o == outcomeNoServers, o == outcomeUnknown && !write:
		return ErrNoLeader
	case o == outcomeUnknown:
		return fmt.Errorf("%w: the leader lost it", consensus.ErrUnknownOutcome)
	}
	return nil
}

// writeOutcome answers a request that came to nothing, in Consul's words.
func writeOutcome(w http.ResponseWriter, err error) {
	h := w.Header()
	text, outcome := err.Error(), outcomeOf(err)
	var lost *lostError
	switch {
	case errors.As(err, &lost):
	case outcome == outcomeNoLeader:
		text = "No cluster leader"
	case outcome == outcomeNoServers:
		text = "No known Consul servers"
	}
	if outcome == "" {
		h.Set(headerError, kindOf(err))
	}
	writeCarried(w, http.StatusInternalServerError, outcome, text)
}

func kindOf(err error) string {
	var refusal *catalog.Error
	if errors.As(err, &refusal) {
		return kindCatalog
	}
	for kind, sentinel := range kinds {
		if errors.Is(err, sentinel) {
			return kind
		}
	}
	return "other"
}

// writeCarried is an answer of this room's own.
func writeCarried(w http.ResponseWriter, status int, outcome, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if outcome != "" {
		h.Set(headerOutcome, outcome)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// toldError is an error that another host told.
type toldError struct {
	text string
	kind error
}

// Error implements error.
func (e *toldError) Error() string { return e.text }

// Unwrap is what it was there.
func (e *toldError) Unwrap() error { return e.kind }

// callError is the error in an answer that is final.
func callError(path string, res *http.Response, data []byte) error {
	text := string(data[:min(len(data), 4096)])
	kind := res.Header.Get(headerError)
	if kind == kindCatalog {
		return &catalog.Error{Text: text}
	}
	return &toldError{text: fmt.Sprintf("call %s: %s", path, text), kind: kinds[kind]}
}

// callFailed is the error of a call without an answer.
func callFailed(ctx context.Context, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("call %s: %w: %w", path, err, cause)
	}
	return fmt.Errorf("call %s: %w", path, err)
}

// callHandle is the msgpack dialect of calls. Fields that are not known are
// skipped: the other host may be newer.
var callHandle = newCallHandle()

func newCallHandle() *codec.MsgpackHandle {
	h := new(codec.MsgpackHandle)
	h.WriteExt = true
	h.RawToString = true
	h.MaxDepth = 16
	h.MaxInitLen = 64
	return h
}

// encodeCall writes a call's body or answer: a []byte is sent as it is.
func encodeCall(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	}
	var b bytes.Buffer
	err := codec.NewEncoder(&b, callHandle).Encode(v)
	return b.Bytes(), err
}

// decodeCall reads what encodeCall wrote.
func decodeCall(data []byte, v any) error {
	if raw, ok := v.(*[]byte); ok {
		*raw = data
		return nil
	}
	return codec.NewDecoderBytes(data, callHandle).Decode(v)
}
