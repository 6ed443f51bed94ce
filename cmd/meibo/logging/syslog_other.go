//go:build windows || plan9

package logging

import "errors"

type noSyslog struct{}

func newSyslog(string) writer { return noSyslog{} }

func (noSyslog) write(line) (bool, error) {
	return false, errors.New("there is no syslog on this system")
}

// Close implements io.Closer.
func (noSyslog) Close() error { return nil }
