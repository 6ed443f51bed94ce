package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxName   = 255 // bytes of a name in wire form (RFC 1035 section 2.3.4)
	maxLabel  = 63
	maxLabels = 128 // a name of 255 bytes has at most 127 labels and the root
)

// Root is the name of the root.
const Root Name = "\x00"

// Name is a domain name in wire form: length octets, labels, a final zero. Its letter case is kept; names compare
// without regard to ASCII case (RFC 4343). The empty string is not a name.
type Name string

var (
	errEmptyName  = errors.New("empty name")
	errEmptyLabel = errors.New("empty label")
	errLongLabel  = errors.New("label longer than 63 bytes")
	errLongName   = errors.New("name longer than 255 bytes")
	errEscape     = errors.New("incomplete or wrong escape")
)

// ParseName reads the presentation form (RFC 1035 section 5.1): labels with dots between them, \. and \DDD escapes, a
// final dot or none. "." is the root.
func ParseName(s string) (Name, error) {
	n, err := parseName(s)
	if err != nil {
		return "", fmt.Errorf("parse domain name %q: %w", s, err)
	}
	return n, nil
}

func parseName(s string) (Name, error) {
	switch s {
	case "":
		return "", errEmptyName
	case ".":
		return Root, nil
	}
	out := make([]byte, 1, len(s)+2)
	start := 0 // of the label being read: its length octet
	for i := 0; i < len(s); {
		if s[i] == '.' {
			if err := closeLabel(out, start); err != nil {
				return "", err
			}
			start = len(out)
			out = append(out, 0)
			i++
			continue
		}
		c, n, err := presentationByte(s[i:])
		if err != nil {
			return "", err
		}
		out = append(out, c)
		i += n
	}
	if len(out)-start > 1 {
		if err := closeLabel(out, start); err != nil {
			return "", err
		}
		out = append(out, 0)
	}
	if len(out) > maxName {
		return "", errLongName
	}
	return Name(out), nil
}

// closeLabel writes the length of the label that ends with out.
func closeLabel(out []byte, start int) error {
	n := len(out) - start - 1
	if n == 0 {
		return errEmptyLabel
	}
	if n > maxLabel {
		return errLongLabel
	}
	out[start] = byte(n)
	return nil
}

// presentationByte reads one byte, escaped or not, and says how many bytes of s it took.
func presentationByte(s string) (c byte, n int, err error) {
	if s[0] != '\\' {
		return s[0], 1, nil
	}
	if len(s) < 2 {
		return 0, 0, errEscape
	}
	if !isDigit(s[1]) {
		return s[1], 2, nil
	}
	if len(s) < 4 || !isDigit(s[2]) || !isDigit(s[3]) {
		return 0, 0, errEscape
	}
	v := int(s[1]-'0')*100 + int(s[2]-'0')*10 + int(s[3]-'0')
	if v > 255 {
		return 0, 0, errEscape
	}
	return byte(v), 4, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// FromLabels makes a name of raw labels, leftmost first. No labels make the root.
func FromLabels(labels ...string) (Name, error) {
	var b strings.Builder
	for _, l := range labels {
		if l == "" {
			return "", fmt.Errorf("make a domain name of %q: %w", labels, errEmptyLabel)
		}
		if len(l) > maxLabel {
			return "", fmt.Errorf("make a domain name of %q: %w", labels, errLongLabel)
		}
		b.WriteByte(byte(len(l)))
		b.WriteString(l)
	}
	b.WriteByte(0)
	if b.Len() > maxName {
		return "", fmt.Errorf("make a domain name of %q: %w", labels, errLongName)
	}
	return Name(b.String()), nil
}

// IsValid reports whether n is a well-formed name in wire form.
func (n Name) IsValid() bool {
	if len(n) == 0 || len(n) > maxName {
		return false
	}
	for i := 0; i < len(n); {
		l := int(n[i])
		if l == 0 {
			return i == len(n)-1
		}
		if l > maxLabel {
			return false
		}
		i += 1 + l
	}
	return false
}

// String returns the presentation form, with a final dot and escapes where they are needed.
func (n Name) String() string {
	if n == Root {
		return "."
	}
	var b strings.Builder
	b.Grow(len(n))
	for _, l := range n.Labels() {
		for i := 0; i < len(l); i++ {
			writePresentation(&b, l[i])
		}
		b.WriteByte('.')
	}
	return b.String()
}

func writePresentation(b *strings.Builder, c byte) {
	switch {
	case c <= ' ' || c >= 0x7f:
		fmt.Fprintf(b, "\\%03d", c)
	case strings.IndexByte(`."\;@()$`, c) >= 0:
		b.WriteByte('\\')
		b.WriteByte(c)
	default:
		b.WriteByte(c)
	}
}

// Lower returns n with ASCII letters in lower case. Length octets are below 64 and so never letters.
func (n Name) Lower() Name {
	for i := 0; i < len(n); i++ {
		if lower[n[i]] != n[i] {
			return Name(appendLower(make([]byte, 0, len(n)), n))
		}
	}
	return n
}

// Equal compares without regard to ASCII case.
func (n Name) Equal(m Name) bool { return len(n) == len(m) && equalFold(n, m) }

// HasSuffix reports whether n is zone or below it. Every name is below the root.
func (n Name) HasSuffix(zone Name) bool {
	for i := 0; i < len(n) && len(n)-i >= len(zone); i += 1 + int(n[i]) {
		if len(n)-i == len(zone) {
			return equalFold(n[i:], zone)
		}
	}
	return false
}

// Labels returns the raw bytes of the labels, leftmost first, without the root.
func (n Name) Labels() []string {
	var out []string
	for i := 0; i < len(n) && n[i] != 0; {
		end := i + 1 + int(n[i])
		if end > len(n) {
			break
		}
		out = append(out, string(n[i+1:end]))
		i = end
	}
	return out
}

// Parent returns n without its first label; the root's is the root.
func (n Name) Parent() Name {
	if len(n) == 0 || n[0] == 0 || 1+int(n[0]) >= len(n) {
		return Root
	}
	return n[1+int(n[0]):]
}

// Child returns label.n, or an error when that is too long.
func (n Name) Child(label string) (Name, error) {
	if l := len(label); l == 0 || l > maxLabel || 1+l+len(n) > maxName {
		return "", fmt.Errorf("put label %q before %s: a label has 1 to 63 bytes and a name at most 255", label, n)
	}
	return Name(string([]byte{byte(len(label))}) + label + string(n)), nil
}

// lower maps ASCII capitals to small letters and every other byte to itself.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()

func appendLower[S string | []byte | Name](dst []byte, s S) []byte {
	for i := 0; i < len(s); i++ {
		dst = append(dst, lower[s[i]])
	}
	return dst
}

// equalFold compares two names of equal length without regard to ASCII case.
func equalFold[S, T string | []byte | Name](a S, b T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// Unasked says why nobody asks for n or a name below it, or nothing: a pattern, an address, a URL, a list, or letters that
// programs encode before they ask (RFC 3492). Such a name in a configuration is a slip.
func (n Name) Unasked() string {
	labels := n.Labels()
	for _, l := range labels {
		for _, c := range []byte(l) {
			switch {
			case c >= 0x80:
				return "programs ask for the encoded form of such letters: write that, xn--..."
			case c == '*':
				return "a * stands for nothing here: names are whole"
			case c <= ' ', c == 0x7f, strings.IndexByte(",;:\"'@()[]{}<>|", c) >= 0:
				return "no domain name has " + strconv.QuoteRune(rune(c)) + " in it"
			case c == '/' && labels[len(labels)-1] != "arpa": // there, networks smaller than 256 have one (RFC 2317)
				return "no domain name has '/' in it"
			}
		}
	}
	return ""
}
