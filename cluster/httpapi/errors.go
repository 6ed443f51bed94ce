package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

// Errors that a [Backend] or an [Agent] returns, wrapped or as they are. statusOf is the
// one table that maps them to HTTP.
var (
	// ErrUnknownService and ErrUnknownCheck: this host holds no such ID.
	ErrUnknownService = errors.New("unknown service ID")
	ErrUnknownCheck   = errors.New("unknown check ID")
	// ErrUnknownMember: gossip has never heard of it.
	ErrUnknownMember = errors.New("unknown member")
	// ErrUnknownServer: the Raft configuration has no such server.
	ErrUnknownServer = errors.New("unknown server")
	// ErrNotTTL: the check is not one that clients report for.
	ErrNotTTL = errors.New("check does not have associated TTL")
	// ErrInvalid: a definition that cannot be held; wrap it with what is wrong.
	ErrInvalid = errors.New("invalid definition")
	// ErrTooMany: a limit of this host is reached; wrap it with which one.
	ErrTooMany = errors.New("limit reached")
)

// Error is an answer of one status and a text that is sent as it is.
type Error struct {
	Status int
	Text   string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func errorf(status int, format string, args ...any) error {
	return &Error{Status: status, Text: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return errorf(http.StatusBadRequest, format, args...)
}

// statusOf maps an error to the status and the text that clients get.
func statusOf(err error) (int, string) {
	var e *Error
	var refused *catalog.Error
	switch {
	case errors.As(err, &e):
		return e.Status, e.Text
	case acl.IsDenied(err), errors.Is(err, acl.ErrNotFound):
		return http.StatusForbidden, err.Error()
	case errors.Is(err, acl.ErrDisabled):
		return http.StatusUnauthorized, err.Error()
	case errors.Is(err, ErrUnknownService), errors.Is(err, ErrUnknownCheck):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest, err.Error()
	case errors.Is(err, ErrTooMany):
		return http.StatusTooManyRequests, err.Error()
	case errors.As(err, &refused):
		return http.StatusInternalServerError, refused.Text
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusInternalServerError, "timed out: " + err.Error()
	}
	return http.StatusInternalServerError, err.Error()
}

// Marked says of what kind err is, one of the errors above: errors.Is finds that, the text
// stays.
func Marked(err, kind error) error { return marked{err, kind} }

type marked struct {
	error
	kind error
}

func (m marked) Is(target error) bool { return target == m.kind }
func (m marked) Unwrap() error        { return m.error }
