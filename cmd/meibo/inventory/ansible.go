package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// readINI reads Ansible's inventory of lines: hosts in groups, with variables.
func (l *list) readINI(data []byte) {
	number, kind := 0, ""
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if group, ok := section(line); ok {
			_, kind, _ = strings.Cut(group, ":")
			if kind != "" && kind != "vars" && kind != "children" && kind != "hosts" {
				l.fault(number, "[%s]: expected [GROUP], [GROUP:vars] or [GROUP:children]", group)
			}
			continue
		}
		if kind == "vars" || kind == "children" {
			continue
		}
		words, err := split(line)
		if err != nil {
			l.fault(number, "%v", err)
			continue
		}
		if len(words) > 0 {
			l.hostLine(number, words)
		}
	}
}

// section is the name in the brackets of a line that begins a group; a range such as [a:c].example is none.
func section(line string) (string, bool) {
	line, _, _ = strings.Cut(line, " #")
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "[") || !strings.HasSuffix(line, "]") || strings.Count(line, "[") > 1 {
		return "", false
	}
	return line[1 : len(line)-1], true
}

// hostLine is `PATTERN[:PORT] [VARIABLE=VALUE]...`.
func (l *list) hostLine(line int, words []string) {
	targets := []string{}
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			l.fault(line, "%q: expected variables, NAME=VALUE each, after the host", word)
			return
		}
		if isTarget(key) {
			targets = append(targets, value)
		}
	}
	l.pattern(line, words[0], targets)
}

// isTarget tells the variables of Ansible's that say where a host is.
func isTarget(key string) bool { return key == "ansible_host" || key == "ansible_ssh_host" }

// pattern adds the hosts that a pattern of Ansible's stands for, each with these targets.
func (l *list) pattern(line int, text string, targets []string) {
	hosts, err := expand(withoutPort(text), maxHosts)
	if err != nil {
		l.fault(line, "%s: %v", text, err)
		return
	}
	for _, name := range hosts {
		h := l.host(line, name)
		if h == nil {
			return
		}
		for _, target := range targets {
			if h.Name == target {
				continue
			}
			if _, err := netip.ParseAddr(h.Name); err == nil { // it is reached there and called so
				h.Addresses = nil
			}
			l.address(line, h, target, true)
		}
	}
}

// withoutPort leaves the port out that may stand behind a host.
func withoutPort(s string) string {
	if addr, err := netip.ParseAddrPort(s); err == nil {
		return addr.Addr().String()
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return addr.String()
	}
	if host, port, ok := cutLast(s, ":"); ok && !strings.HasSuffix(port, "]") {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return host
		}
	}
	return s
}

func cutLast(s, sep string) (before, after string, found bool) {
	if at := strings.LastIndex(s, sep); at >= 0 {
		return s[:at], s[at+len(sep):], true
	}
	return s, "", false
}

// expand writes out the ranges of a pattern, [FIRST:LAST] or [FIRST:LAST:STEP], of numbers or letters.
func expand(s string, limit int) ([]string, error) {
	open := strings.IndexByte(s, '[')
	if open < 0 {
		return []string{s}, nil
	}
	end := strings.IndexByte(s[open:], ']')
	if end < 0 {
		return nil, errors.New(`"[" without "]": expected a range, [FIRST:LAST]`)
	}
	end += open
	values, err := spell(s[open+1:end], limit)
	if err != nil {
		return nil, err
	}
	rests, err := expand(s[end+1:], limit/len(values))
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(values)*len(rests))
	for _, v := range values {
		for _, rest := range rests {
			out = append(out, s[:open]+v+rest)
		}
	}
	return out, nil
}

// spell writes out one range, at least one value and at most so many.
func spell(text string, limit int) ([]string, error) {
	parts := strings.Split(text, ":")
	wrong := fmt.Errorf("[%s]: expected a range of numbers or letters, [FIRST:LAST] or [FIRST:LAST:STEP]", text)
	if len(parts) != 2 && len(parts) != 3 {
		return nil, wrong
	}
	step := 1
	if len(parts) == 3 {
		var err error
		if step, err = strconv.Atoi(parts[2]); err != nil || step < 1 {
			return nil, wrong
		}
	}
	first, last, value, ok := bounds(parts[0], parts[1])
	if !ok || last < first {
		return nil, wrong
	}
	if limit < 1 || (last-first)/step >= limit {
		return nil, fmt.Errorf("[%s]: more than %d hosts", text, maxHosts)
	}
	out := make([]string, 0, (last-first)/step+1)
	for i := first; i <= last; i += step {
		out = append(out, value(i))
	}
	return out, nil
}

// bounds are those of a range, and how its values are written.
func bounds(from, to string) (first, last int, value func(int) string, ok bool) {
	if isLetter(from) && isLetter(to) {
		return int(from[0]), int(to[0]), func(i int) string { return string(rune(i)) }, true
	}
	const digits = 9 // no overflow, and more than there can be
	if from == "" {  // as Ansible has it
		from = "0"
	}
	first, e1 := strconv.Atoi(from)
	last, e2 := strconv.Atoi(to)
	if e1 != nil || e2 != nil || first < 0 || len(from) > digits || len(to) > digits || strings.ContainsAny(from+to, "+-") {
		return 0, 0, nil, false
	}
	width := 0
	if len(from) > 1 && from[0] == '0' {
		width = len(from)
	}
	return first, last, func(i int) string { return fmt.Sprintf("%0*d", width, i) }, true
}

func isLetter(s string) bool {
	return len(s) == 1 && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z')
}

// split parts a line into words as a shell does: quotes keep spaces, and "#" after a space begins a comment.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	begun := false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		case c == '#' && !begun:
			return words, nil
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c without its end", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
