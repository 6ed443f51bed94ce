package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDepth bounds nesting: groups within groups of an inventory are a few.
	maxDepth = 100
	// maxAliased bounds what aliases of YAML can stand for.
	maxAliased = 1 << 20
)

// value is one value of JSON or YAML: a list, an object (fields), or a text.
type value struct {
	line   int
	kind   kind
	text   string
	list   []value
	fields []field
}

type field struct {
	key   string
	value value
}

type kind int

const (
	isNull kind = iota
	isText      // numbers and truths too
	isList
	isObject
)

func (k kind) String() string { return [...]string{"nothing", "a text", "a list", "an object"}[k] }

// get is the value of a key; of none, one that is null.
func (v value) get(key string) value {
	for _, f := range v.fields {
		if f.key == key {
			return f.value
		}
	}
	return value{line: v.line}
}

// readJSON reads what hosts and readYAML read in JSON.
func (l *list) readJSON(data []byte) {
	r := &jsonReader{dec: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1}
	r.dec.UseNumber()
	v, err := r.value(0)
	if err == nil {
		if _, err = r.dec.Token(); errors.Is(err, io.EOF) {
			l.hostsOf(v)
			return
		} else if err == nil {
			r.count(int(r.dec.InputOffset()))
			err = errors.New("text after the end of the value")
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends within a value")
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		r.count(int(syntax.Offset))
	}
	l.fault(r.line, "parse JSON: %v", err)
}

// jsonReader keeps lines, which encoding/json's decoding does not.
type jsonReader struct {
	dec        *json.Decoder
	data       []byte
	line, seen int // the line at this offset
}

// count brings the line to an offset; that never goes back.
func (r *jsonReader) count(to int) {
	if to = min(to, len(r.data)); to > r.seen {
		r.line += bytes.Count(r.data[r.seen:to], []byte("\n"))
		r.seen = to
	}
}

func (r *jsonReader) value(depth int) (v value, err error) {
	tok, err := r.dec.Token()
	r.count(int(r.dec.InputOffset()))
	v.line = r.line
	if err != nil {
		return v, err
	}
	if depth > maxDepth {
		return v, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch t := tok.(type) {
	case json.Delim:
		v.kind = isList
		if t == '{' {
			v.kind = isObject
		}
		for r.dec.More() {
			var key json.Token
			if v.kind == isObject {
				if key, err = r.dec.Token(); err != nil {
					return v, err
				}
			}
			inner, err := r.value(depth + 1)
			if err != nil {
				return v, err
			}
			if name, ok := key.(string); ok {
				v.fields = append(v.fields, field{name, inner})
			} else {
				v.list = append(v.list, inner)
			}
		}
		_, err = r.dec.Token() // the end
	case string:
		v.kind, v.text = isText, t
	case json.Number, bool:
		v.kind, v.text = isText, fmt.Sprint(t)
	}
	return v, err
}

// lineOf finds the line that the YAML library names in its errors.
var lineOf = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// readYAML reads Ansible's inventory in YAML, or hosts as JSON has them.
func (l *list) readYAML(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			line := 0
			if m := lineOf.FindStringSubmatch(err.Error()); m != nil {
				line, _ = strconv.Atoi(m[1])
			}
			l.fault(line, "parse YAML: %s", lineOf.ReplaceAllString(err.Error(), ""))
			return
		}
		budget := len(data) + maxAliased
		v, err := fromYAML(&doc, 0, &budget)
		if err != nil {
			l.fault(v.line, "%v", err)
			return
		}
		if v.kind != isNull {
			l.hostsOf(v)
		}
	}
}

func fromYAML(n *yaml.Node, depth int, budget *int) (v value, err error) {
	v.line = n.Line
	if *budget--; *budget < 0 {
		return v, errors.New("aliases stand for more values than an inventory has")
	}
	if depth > maxDepth {
		return v, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) > 0 {
			return fromYAML(n.Content[0], depth, budget)
		}
	case yaml.AliasNode:
		v, err = fromYAML(n.Alias, depth+1, budget)
		v.line = n.Line
		return v, err
	case yaml.ScalarNode:
		if n.Tag != "!!null" {
			v.kind, v.text = isText, n.Value
		}
	case yaml.SequenceNode:
		v.kind = isList
		for _, c := range n.Content {
			inner, err := fromYAML(c, depth+1, budget)
			if err != nil {
				return inner, err
			}
			v.list = append(v.list, inner)
		}
	case yaml.MappingNode:
		v.kind = isObject
		return v, mapping(&v, n, depth, budget)
	}
	return v, nil
}

func mapping(v *value, n *yaml.Node, depth int, budget *int) error {
	var merged []field
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		inner, err := fromYAML(n.Content[i+1], depth+1, budget)
		if err != nil {
			v.line = inner.line
			return err
		}
		if key.Tag == "!!merge" {
			merged = append(merged, inner.fields...)
			continue
		}
		inner.line = key.Line
		v.fields = append(v.fields, field{key.Value, inner})
	}
	for _, f := range merged { // what the object says itself counts
		if v.get(f.key).kind == isNull {
			v.fields = append(v.fields, f)
		}
	}
	return nil
}

// hostsOf takes the hosts of a whole inventory, by its shape.
func (l *list) hostsOf(v value) {
	switch {
	case v.kind == isList:
		l.hostList(v.list)
	case v.kind != isObject:
		l.fault(v.line, "%s: expected a list or an object of hosts", v.kind)
	case v.get("_meta").kind == isObject:
		l.listed(v)
	case isGroups(v), v.get("all").kind == isObject:
		for _, f := range v.fields {
			l.group(f.key, f.value)
		}
	default:
		for _, key := range []string{"hosts", "nodes", "items", "results"} { // a list with a head
			if inner := v.get(key); inner.kind == isList {
				l.hostList(inner.list)
				return
			}
		}
		if inner := v.get("hosts"); inner.kind == isObject && len(v.fields) == 1 {
			v = inner
		}
		for _, f := range v.fields {
			l.named(f.key, f.value)
		}
	}
}

// isGroups tells Ansible's groups: objects that hold hosts, children or vars and nothing else.
func isGroups(v value) bool {
	found := false
	for _, f := range v.fields {
		if f.value.kind != isObject && f.value.kind != isNull {
			return false
		}
		for _, inner := range f.value.fields {
			if inner.key != "hosts" && inner.key != "children" && inner.key != "vars" {
				return false
			}
			found = true
		}
	}
	return found
}

// group is one group of Ansible's YAML.
func (l *list) group(name string, v value) {
	for _, f := range v.fields {
		switch {
		case f.value.kind == isNull, f.key == "vars":
		case f.key != "hosts" && f.key != "children":
			l.fault(f.value.line, "key %q of group %s: expected hosts, children or vars", f.key, name)
		case f.value.kind == isList && f.key == "hosts": // scripts' JSON
			l.hostList(f.value.list)
		case f.value.kind == isList: // names of groups
		case f.value.kind != isObject:
			l.fault(f.value.line, "%s of group %s is %s: expected an object with a key for each", f.key, name, f.value.kind)
		case f.key == "children":
			for _, child := range f.value.fields {
				if child.value.kind != isObject && child.value.kind != isNull {
					l.fault(child.value.line, "group %s is %s: expected an object with hosts, children or vars", child.key, child.value.kind)
					continue
				}
				l.group(child.key, child.value)
			}
		default:
			for _, host := range f.value.fields {
				l.hostVars(host.key, host.value)
			}
		}
	}
}

// hostVars is a host, or the pattern of some, and its variables.
func (l *list) hostVars(name string, vars value) {
	if vars.kind != isObject && vars.kind != isNull {
		l.fault(vars.line, "host %s is %s: expected an object with its variables", name, vars.kind)
		return
	}
	var targets []string
	for _, f := range vars.fields {
		if isTarget(f.key) && f.value.kind == isText {
			targets = append(targets, f.value.text)
		}
	}
	l.pattern(vars.line, name, targets)
}

// listed is what ansible-inventory --list prints: groups, and the variables of all hosts.
func (l *list) listed(v value) {
	for _, f := range v.fields {
		switch hosts := f.value; {
		case f.key == "_meta":
		case hosts.kind == isList: // a group of old scripts
			l.hostList(hosts.list)
		default:
			l.hostList(hosts.get("hosts").list)
		}
	}
	for _, f := range v.get("_meta").get("hostvars").fields {
		l.hostVars(f.key, f.value)
	}
}

func (l *list) hostList(hosts []value) {
	for _, v := range hosts {
		switch v.kind {
		case isText:
			l.pattern(v.line, v.text, nil)
		case isObject:
			l.object(v)
		default:
			l.fault(v.line, "%s: expected a host, an object with %s, and %s", v.kind, someNames, someAddresses)
		}
	}
}

// object is a host that says its own name.
func (l *list) object(v value) {
	for _, want := range names {
		for _, f := range v.fields {
			if bare(f.key) == want && f.value.kind == isText {
				if h := l.host(f.value.line, f.value.text); h != nil {
					l.addressesOf(h, v)
				}
				return
			}
		}
	}
	l.fault(v.line, "a host without a name: expected a key %s", someNames)
}

// named is a host under its name: an address, several, or an object that has some.
func (l *list) named(name string, v value) {
	h := l.host(v.line, name)
	switch {
	case h == nil:
	case v.kind != isObject:
		l.addressValue(h, v, false)
	default:
		l.addressesOf(h, v)
		for _, f := range v.fields {
			if f.value.kind == isObject && len(h.Addresses) == 0 {
				l.fault(f.value.line, "%s has %q, and no address: expected a host, with %s; or a group of Ansible's, with hosts, children or vars", name, f.key, someAddresses)
				return
			}
		}
	}
}

func (l *list) addressesOf(h *Host, v value) {
	for _, f := range v.fields {
		if slices.Contains(addresses, bare(f.key)) {
			l.addressValue(h, f.value, strings.HasPrefix(f.key, "ansible_"))
		}
	}
}

func (l *list) addressValue(h *Host, v value, mayBeName bool) {
	switch v.kind {
	case isNull:
	case isText:
		l.address(v.line, h, v.text, mayBeName)
	case isList:
		for _, inner := range v.list {
			l.addressValue(h, inner, mayBeName)
		}
	case isObject: // as NetBox has it
		l.addressesOf(h, v)
	}
}
