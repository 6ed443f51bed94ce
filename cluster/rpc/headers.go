package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"meibo/cluster/catalog"
)

// The headers that hosts put on requests to one another and on their answers. They
// mean nothing on a request of a client, and are taken off.
const (
	headerPrefix = "X-Meibo-"

	headerNode             = headerPrefix + "Scope-Node"
	headerDatacenter       = headerPrefix + "Scope-Datacenter"
	headerToken            = headerPrefix + "Scope-Token"
	headerHops             = headerPrefix + "Hops"
	headerRequest          = headerPrefix + "Request"
	headerOriginID         = headerPrefix + "Origin-Id"
	headerOriginName       = headerPrefix + "Origin-Name"
	headerOriginDatacenter = headerPrefix + "Origin-Datacenter"
	headerTo               = headerPrefix + "To"
	headerFrom             = headerPrefix + "From"    // link address of who asks
	headerOutcome          = headerPrefix + "Outcome" // may be asked for again
	headerError            = headerPrefix + "Error"   // what kind, final
	headerLeader           = headerPrefix + "Leader"  // link address of the leader, in answers

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

// setEscaped sets a header whose value may hold anything.
func setEscaped(h http.Header, key, value string) {
	if value != "" {
		h.Set(key, url.QueryEscape(value))
	}
}

// getEscaped reads what setEscaped wrote; what it did not write is empty.
func getEscaped(h http.Header, key string) string {
	v, err := url.QueryUnescape(h.Get(key))
	if err != nil {
		return ""
	}
	return v
}

// setHeaders puts on a request what the next host must know of the way it came.
func (j call) setHeaders(h http.Header) {
	h.Set(headerHops, strconv.Itoa(j.hops+1))
	if j.hops > 0 {
		setEscaped(h, headerOriginID, j.origin.ID)
		setEscaped(h, headerOriginName, j.origin.Name)
		setEscaped(h, headerOriginDatacenter, j.origin.Datacenter)
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

// kinds are errors that are told by their kind and come back as what they were.
var kinds = map[string]error{
	"busy":      catalog.ErrBusy,
	"disk-full": catalog.ErrDiskFull,
	"too-large": catalog.ErrTooLarge,
	"refused":   catalog.ErrNotAllowed,
}

// kindCatalog is the kind of a *catalog.Error.
const kindCatalog = "catalog"

// outcomeOf says whether what failed with err may be asked for again; empty: no.
func outcomeOf(err error) string {
	var refusal *catalog.Error
	switch {
	case err == nil, errors.As(err, &refusal):
		return ""
	case errors.Is(err, catalog.ErrUnknownOutcome):
		return outcomeUnknown
	case errors.Is(err, catalog.ErrNoServers):
		return outcomeNoServers
	case errors.Is(err, catalog.ErrNoLeader):
		return outcomeNoLeader
	case errors.Is(err, context.Canceled): // this host stops
		return outcomeUnknown
	}
	return ""
}

// outcomeIn is the error that an answer stands for which is not final.
func outcomeIn(res *http.Response, write bool) error {
	switch o := res.Header.Get(headerOutcome); {
	case o == outcomeNoLeader, o == outcomeNoServers, o == outcomeUnknown && !write:
		return catalog.ErrNoLeader
	case o == outcomeUnknown:
		return fmt.Errorf("%w: the leader lost it", catalog.ErrUnknownOutcome)
	}
	return nil
}

// writeError answers a request that came to nothing, in Consul's words.
func writeError(w http.ResponseWriter, err error) {
	h := w.Header()
	text, outcome := err.Error(), outcomeOf(err)
	var lost *LostError
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
	writeText(w, http.StatusInternalServerError, outcome, text)
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

// writeText answers with a text of this room's own.
func writeText(w http.ResponseWriter, status int, outcome, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if outcome != "" {
		h.Set(headerOutcome, outcome)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// remoteError is an error in another host's words.
type remoteError struct {
	text string
	kind error
}

// Error implements error.
func (e *remoteError) Error() string { return e.text }

// Unwrap is what it was there.
func (e *remoteError) Unwrap() error { return e.kind }

// callError is the error in an answer that is final.
func callError(path string, res *http.Response, data []byte) error {
	text := string(data[:min(len(data), 4096)])
	kind := res.Header.Get(headerError)
	if kind == kindCatalog {
		return &catalog.Error{Text: text}
	}
	return &remoteError{text: fmt.Sprintf("call %s: %s", path, text), kind: kinds[kind]}
}

// callFailed is the error of a call without an answer.
func callFailed(ctx context.Context, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("call %s: %w: %w", path, err, cause)
	}
	return fmt.Errorf("call %s: %w", path, err)
}
