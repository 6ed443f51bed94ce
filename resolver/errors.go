package resolver

import (
	"errors"

	"meibo/cache"
	"meibo/resolver/wire"
)

const textPanic = "internal error"

var (
	errNoRoute     = &refusal{wire.EDENotAuth, "no zone or route for this name"}
	errNotAllowed  = &refusal{wire.EDEProhibited, "questions of this network are not forwarded (allow_recursion)"}
	errNoRecursion = &refusal{wire.EDENotAuth, "recursion not desired and nothing in the cache"}
	errBusy        = &Failure{EDE: wire.EDEOther, Text: "too many questions in flight"}
	errCrowded     = &Failure{EDE: wire.EDEOther, Text: "too many clients wait for answers"}
	errClosed      = &Failure{EDE: wire.EDENotReady, Text: "the resolver is stopping"}
	errPanic       = &Failure{EDE: wire.EDEOther, Text: textPanic}
	errDown        = &Failure{EDE: wire.EDENoReachable, Text: "every upstream of the route is down"}
	errLate        = &Failure{EDE: wire.EDENoReachable, Text: "the upstreams are late"}
)

// refusal is an error answered REFUSED in place of SERVFAIL.
type refusal struct {
	ede  uint16
	text string
}

func (e *refusal) Error() string { return e.text }

// errorCode is the one table from errors to response codes.
func errorCode(err error) (rcode, ede uint16, text string) {
	var no *refusal
	if errors.As(err, &no) {
		return wire.RcodeRefused, no.ede, no.text
	}
	var f *Failure
	if errors.As(err, &f) {
		return wire.RcodeServFail, f.EDE, f.Text
	}
	return wire.RcodeServFail, wire.EDEOther, err.Error()
}

func failureText(err error) string {
	if err == nil {
		return ""
	}
	_, _, text := errorCode(err)
	return text
}

// badAnswer is the error of an upstream that answered, but with a response code
// that is no answer. It is passed on when there is nothing better.
type badAnswer struct{ entry *cache.Entry }

func (e *badAnswer) Error() string {
	return e.entry.Source + " answered " + wire.RcodeString(e.entry.Answer.Rcode())
}
