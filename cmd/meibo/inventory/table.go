package inventory

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// names and addresses are the columns and keys that say what a host is called and where it
// is, in the order in which they count, without letter case, spaces, dashes and underscores.
var (
	names     = []string{"name", "node", "nodename", "host", "hostname", "fqdn", "inventoryhostname"}
	addresses = []string{"address", "addr", "addresses", "ip", "ips", "ipaddress", "ipaddresses", "ipaddr", "ipv4", "ipv6", "privateip", "primaryip", "primaryip4", "primaryip6", "ansiblehost", "ansiblesshhost"}
)

const (
	someNames     = "name, node, host, hostname or fqdn"
	someAddresses = "address, ip, ip_address, ipv4, ipv6 or ansible_host"
)

// bare is a key as names and addresses have it.
func bare(key string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(key))
}

// separator is what parts the columns of a line; 0: nothing does.
func separator(line string) rune {
	for _, c := range ",;\t" {
		if strings.ContainsRune(line, c) {
			return c
		}
	}
	return 0
}

// readCSV reads a table with a header, or of name and address.
func (l *list) readCSV(data []byte) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace = '#', -1, true
	for line := range strings.Lines(string(data)) {
		if c := separator(line); c != 0 && line[0] != '#' {
			r.Comma = c
			break
		}
	}
	if r.Comma == '\t' {
		r.TrimLeadingSpace = false // that would be the separator
	}
	var at *columns
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		var wrong *csv.ParseError
		if errors.As(err, &wrong) {
			l.fault(wrong.Line, "column %d: %v", wrong.Column, wrong.Err)
			return
		}
		line, _ := r.FieldPos(0)
		for i := range record {
			record[i] = strings.TrimSpace(record[i])
		}
		if at == nil {
			c, isHeader := l.header(line, record)
			if c == nil {
				return
			}
			if at = c; isHeader {
				continue
			}
		}
		l.row(line, at, record)
	}
}

// columns are where a table has what counts.
type columns struct {
	name      int
	addresses []int
	fields    int // of the header; 0: there is none
}

// header tells the columns by the first line; nil if it says neither.
func (l *list) header(line int, record []string) (c *columns, isHeader bool) {
	if len(record) > 1 {
		if _, err := netip.ParseAddr(record[1]); err == nil {
			return &columns{addresses: []int{1}}, false
		}
	}
	c = &columns{name: -1, fields: len(record)}
	best := len(names)
	for i, title := range record {
		if at := slices.Index(names, bare(title)); at >= 0 && at < best {
			best, c.name = at, i
		}
		if slices.Contains(addresses, bare(title)) {
			c.addresses = append(c.addresses, i)
		}
	}
	if c.name < 0 {
		l.fault(line, "no column of names: expected a header with %s, and with %s; or name and address in each line", someNames, someAddresses)
		return nil, false
	}
	return c, true
}

func (l *list) row(line int, at *columns, record []string) {
	if !slices.ContainsFunc(record, func(s string) bool { return s != "" }) {
		return
	}
	if at.fields > 0 && len(record) != at.fields {
		l.fault(line, "expected %d columns, as the header has, got %d", at.fields, len(record))
		return
	}
	h := l.host(line, record[at.name])
	if h == nil {
		return
	}
	for _, i := range at.addresses {
		if i >= len(record) {
			l.fault(line, "no address of %s: expected name and address", h.Name)
			return
		}
		for _, text := range strings.FieldsFunc(record[i], func(c rune) bool { return strings.ContainsRune(" ,;|", c) }) {
			l.address(line, h, text, false)
		}
	}
}

// readHosts reads a hosts file. Loopback names no host, and neither do groups and addresses that block.
func (l *list) readHosts(data []byte) {
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		switch {
		case err != nil:
			l.fault(number, "%q: expected an IP address and the names of its host", fields[0])
			continue
		case len(fields) == 1:
			l.fault(number, "no name for %s: expected an IP address and the names of its host", fields[0])
			continue
		case addr.IsLoopback(), addr.IsMulticast(), addr.IsUnspecified(), addr.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}), fields[1] == "ip6-localnet":
			continue
		}
		h := l.host(number, fields[1])
		if h == nil {
			continue
		}
		h.add(addr)
		for _, name := range fields[2:] {
			if !isName(name) {
				l.fault(number, "%q is no name of a host", name)
				continue
			}
			h.alias(name)
		}
	}
}
