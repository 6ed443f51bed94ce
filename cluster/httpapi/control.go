package httpapi

import (
	"context"
	"net"
	"net/http"
	"os"
	"time"
)

// The control socket is a local one over which this host's operator asks: root, and the
// user that the daemon runs as. What an operator alone may do (see the keys of the cluster,
// change them, take members and servers out) is refused everywhere else until ACLs can
// allow it, unless the configuration opens it to all who reach the API, as Consul does.

// headerControl tells clients on this host the path of the control socket.
const headerControl = "X-Meibo-Control"

type controlKey struct{}

func overControl(r *http.Request) bool {
	is, _ := r.Context().Value(controlKey{}).(bool)
	return is
}

func asControl(ctx context.Context) context.Context {
	return context.WithValue(ctx, controlKey{}, true)
}

// mayOperate reports whether a request may do what an operator alone may.
func (a *API) mayOperate(r *http.Request) bool {
	return overControl(r) || a.access.Load().operatorOpen
}

// operates makes a handler one for operators. What other hosts carried here was allowed there.
func (e *endpoints) operates(h handler) handler {
	return func(r *request) (any, error) {
		if err := e.refuseOthers(r); err != nil {
			return nil, err
		}
		return h(r)
	}
}

func (e *endpoints) refuseOthers(r *request) error {
	if e.mayOperate == nil || e.mayOperate(r.Request) {
		return nil
	}
	how := "there is no control socket at the moment, the daemon's log says why"
	if path := e.control(); path != "" {
		how = "use the `meibo` command on this host, as root or as the user that the daemon runs as (it goes over " + path + ")"
	}
	return errorf(http.StatusForbidden, "Permission denied: this is for the operator of this host alone: %s; "+
		"or open it to everybody who reaches this port with http_config { operator = \"open\" }, as it is in Consul", how)
}

// controlListener lets in who may operate.
type controlListener struct {
	net.Listener
	refused func(uid int)
}

// notAllowed is what a client of another user reads before it is cut.
const notAllowed = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"X-Content-Type-Options: nosniff\r\n\r\nPermission denied: the control socket is for root and for the user that the daemon runs as\n"

// Accept implements net.Listener.
func (l *controlListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(conn)
		if err == nil && (uid == 0 || uid == os.Geteuid()) {
			return conn, nil
		}
		l.refused(uid)
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = conn.Write([]byte(notAllowed))
		_ = conn.Close()
	}
}
