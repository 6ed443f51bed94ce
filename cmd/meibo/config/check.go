package config

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"meibo/cluster/httpapi"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

// The checks of single values. Each returns what was expected, or "".
// Address templates ({{ … }}) are looked at when they are evaluated.

func isTemplate(s string) bool { return strings.Contains(s, "{{") }

var (
	datacenterForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	nodeIDForm     = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
)

func checkDatacenter(v any) string {
	s := v.(string)
	if len(s) > 63 {
		return "a name of at most 63 characters, as many as a DNS label has"
	}
	if s == "" || datacenterForm.MatchString(s) {
		return ""
	}
	return "a name of letters, digits, - and _"
}

func checkNodeName(v any) string {
	if s := v.(string); len(s) > 253 || strings.ContainsAny(s, " \t\r\n") {
		return "a name of at most 253 characters without spaces"
	}
	return ""
}

func checkNodeID(v any) string {
	if s := v.(string); s == "" || nodeIDForm.MatchString(s) {
		return ""
	}
	return "a UUID such as 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
}

const (
	metaPairs = 64
	metaKey   = 128
	metaValue = 512
)

var metaForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func checkMeta(m map[string]string, reserved string) string {
	if len(m) > metaPairs {
		return fmt.Sprintf("at most %d pairs", metaPairs)
	}
	for k, v := range m {
		switch {
		case len(k) > metaKey || !metaForm.MatchString(k):
			return fmt.Sprintf("keys of letters, digits, - and _, at most %d long", metaKey)
		case len(v) > metaValue:
			return fmt.Sprintf("values of at most %d bytes", metaValue)
		case reserved != "" && strings.HasPrefix(k, reserved):
			return fmt.Sprintf("no key that begins with %q (reserved)", reserved)
		}
	}
	return ""
}

func checkNodeMeta(v any) string { return checkMeta(v.(map[string]string), "consul-") }

func checkServiceMeta(v any) string { return checkMeta(v.(map[string]string), "consul-") }

// parseAddr reads an IP address; brackets may be around an IPv6 one, as Consul
// has it.
func parseAddr(s string) (netip.Addr, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		s = strings.TrimSuffix(inner, "]")
	}
	return netip.ParseAddr(s)
}

func checkAddr(v any) string {
	s := strings.TrimSpace(v.(string))
	if _, err := parseAddr(s); s == "" || isTemplate(s) || err == nil {
		return ""
	}
	return "an IP address or a template"
}

func checkAddr4(v any) string {
	s := strings.TrimSpace(v.(string))
	if a, err := parseAddr(s); s == "" || isTemplate(s) || err == nil && a.Is4() {
		return ""
	}
	return "an IPv4 address or a template"
}

func checkAddr6(v any) string {
	s := strings.TrimSpace(v.(string))
	if a, err := parseAddr(s); s == "" || isTemplate(s) || err == nil && a.Is6() {
		return ""
	}
	return "an IPv6 address or a template"
}

func checkClientAddr(v any) string {
	for _, s := range strings.Fields(v.(string)) {
		if isTemplate(v.(string)) {
			return ""
		}
		path, unix := strings.CutPrefix(s, "unix://")
		if a, err := parseAddr(s); unix && path == "" || !unix && (err != nil || !bindable(a)) {
			return "IP addresses separated by spaces, templates, or unix:///path"
		}
	}
	return ""
}

func checkDNSAddr(v any) string {
	if checkClientAddr(v) != "" || strings.Contains(v.(string), "unix://") {
		return "IP addresses separated by spaces, or templates"
	}
	return ""
}

func checkListen(v any) string {
	if ap, ok := parseListen(v.(string)); ok && bindable(ap.Addr()) {
		return ""
	}
	return `an address such as "127.0.0.1:53" or "[::1]:53"`
}

// bindable leaves out addresses that no host can listen on: those of groups, and
// link-local ones that do not say on which link.
func bindable(a netip.Addr) bool {
	return !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !(a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "")
}

// parseListen reads IP:port, [IPv6]:port, or an IP alone, which means port 53.
func parseListen(s string) (netip.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(s)
	if err == nil {
		return ap, true
	}
	a, err := parseAddr(s)
	return netip.AddrPortFrom(a, 53), err == nil
}

func checkRecursors(v any) string {
	s := v.(string)
	if ap, ok := parseListen(s); isTemplate(s) || ok && !ap.Addr().IsUnspecified() && ap.Port() != 0 {
		return ""
	}
	return "an IP address, IP:port or a template, and not 0.0.0.0 or ::"
}

func checkRecursor(v any) string { return checkRecursors(v) }

// defaultServers stands for the servers of the default route, in a forward
// block that makes an exception of a larger one.
const defaultServers = "#"

func checkServers(v any) string {
	if v == defaultServers {
		return ""
	}
	return checkRecursors(v)
}

func checkCIDRs(v any) string {
	if _, ok := parsePrefix(v.(string)); ok {
		return ""
	}
	return "a network such as 10.0.0.0/8"
}

func checkAllowedHost(v any) string {
	if httpapi.CheckAccess(httpapi.Config{AllowedHosts: []string{v.(string)}}) != nil {
		return "a host name without scheme and port, or *.name"
	}
	return ""
}

// parsePrefix reads a CIDR; bits beyond the mask are cut off, as Consul does.
func parsePrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		// Addresses are compared unmapped: as it is written it would match nobody.
		p, err = p.Addr().Unmap().Prefix(p.Bits() - 96)
	}
	return p.Masked(), err == nil
}

// parseNetwork takes an address for the network of it alone.
func parseNetwork(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.WithZone("").Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	return parsePrefix(s)
}

func checkIP(v any) string {
	if _, err := netip.ParseAddr(v.(string)); err == nil {
		return ""
	}
	return "an IP address"
}

// checkName is checkDomain for what must be set.
func checkName(v any) string {
	if strings.Trim(v.(string), ".") == "" {
		return "a domain"
	}
	return checkDomain(v)
}

func checkDomain(v any) string {
	s := strings.TrimSuffix(v.(string), ".")
	if s == "" {
		return ""
	}
	n, err := wire.ParseName(s)
	if err != nil || strings.ContainsAny(s, " \t\r\n\"\\") {
		return "a domain of at most 253 characters, in labels of 1 to 63"
	}
	if why := n.Lower().Unasked(); why != "" {
		return "a domain that can be asked for (" + why + ")"
	}
	return ""
}

func checkMode(v any) string {
	s := v.(string)
	if _, err := strconv.ParseUint(s, 8, 12); s == "" || err == nil {
		return ""
	}
	return "octal permissions such as 0660"
}

// checkEncrypt wants an AES key; memberlist takes these three lengths.
func checkEncrypt(v any) string {
	s := v.(string)
	if s == "" || s == noKey {
		return ""
	}
	key, err := base64.StdEncoding.DecodeString(s)
	if n := len(key); err == nil && (n == 16 || n == 24 || n == 32) {
		return ""
	}
	return "base64 of 16, 24 or 32 bytes (meibo keygen makes one), or \"none\""
}

func checkTLSVersion(v any) string {
	switch strings.ToLower(v.(string)) {
	case "", "tls10", "tls11", "tls12", "tls13", "tlsv1_0", "tlsv1_1", "tlsv1_2", "tlsv1_3", "tls_auto":
		return ""
	}
	return "one of TLSv1_0, TLSv1_1, TLSv1_2, TLSv1_3"
}

func checkServiceAddress(v any) string {
	if a, err := netip.ParseAddr(v.(string)); err == nil && a.IsUnspecified() {
		return "an address that can be reached, or none for the node's"
	}
	return ""
}

const pinPrefix = "sha256/"

func checkPin(v any) string {
	text, ok := strings.CutPrefix(v.(string), pinPrefix)
	if pin, err := base64.StdEncoding.DecodeString(text); !ok || err != nil || len(pin) != sha256.Size {
		return `a pin such as "sha256/…", 32 octets in base64`
	}
	return ""
}

func checkTypes(v any) string {
	if _, ok := wire.ParseType(v.(string)); ok {
		return ""
	}
	return "a type of record such as AAAA"
}

func checkNetworks(v any) string {
	if _, ok := parseNetwork(v.(string)); ok {
		return ""
	}
	return "an address or a network such as 10.0.0.0/8"
}

// checkRecords lets the room that answers them read the record.
func checkRecords(v any) string {
	_, err := local.NewHosts(local.HostsConfig{Files: []string{}, Records: []string{v.(string)}})
	if err == nil {
		return ""
	}
	why := err
	if inner := errors.Unwrap(err); inner != nil {
		why = inner
	}
	return fmt.Sprintf(`a record such as "nas.home A 192.0.2.7" (%v)`, why)
}
