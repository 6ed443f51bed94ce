package dnsmasq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Where dnsmasq's service has its settings from.
const (
	mainFile     = "/etc/dnsmasq.conf"
	defaultsFile = "/etc/default/dnsmasq"     // Debian: further settings of its command line
	resolvFile   = "/run/dnsmasq/resolv.conf" // what resolvconf gives it, where that is installed
	resolvconf   = "/etc/resolvconf/update.d" // it is
)

// ErrNone says that dnsmasq has no configuration here.
var ErrNone = errors.New("dnsmasq has no configuration here: there is no " + mainFile)

// ImportService is Import for what dnsmasq's own service reads on a host whose files are
// below root ("" for this host): its file and, where Debian has it so, folders and options
// that /etc/default/dnsmasq names. With keepAgent a Consul agent on the host is asked as
// any server is; without, meibo answers its names itself.
func ImportService(root string, keepAgent bool) (Result, error) {
	r := reader{root: root}
	err := r.file(mainFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, err
	}
	_, missing := os.Stat(root + defaultsFile)
	if err != nil && missing != nil {
		return Result{}, ErrNone
	}
	if err := r.defaults(); err != nil {
		return Result{}, err
	}
	return r.result(keepAgent), nil
}

// defaults reads the settings of Debian's service.
func (r *reader) defaults() error {
	data, err := os.ReadFile(r.root + defaultsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	number, ignoresResolvconf := 0, false
	for line := range strings.Lines(string(data)) {
		number++
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "CONFIG_DIR":
			if value != "" {
				if err := r.dir(option{file: defaultsFile, line: number, name: "conf-dir", value: value}); err != nil {
					return err
				}
			}
		case "DNSMASQ_OPTS":
			for word := range strings.FieldsSeq(value) {
				if o, ok := parseLine(word); ok {
					o.file, o.line = defaultsFile, number
					r.add(o)
				}
			}
		case "IGNORE_RESOLVCONF":
			ignoresResolvconf = value == "yes"
		}
	}
	if _, err := os.Stat(r.root + resolvconf); err == nil && !ignoresResolvconf {
		if _, err := os.Stat(r.root + resolvFile); err == nil {
			r.add(option{file: defaultsFile, line: number, name: "resolv-file", value: resolvFile})
		}
	}
	return nil
}
