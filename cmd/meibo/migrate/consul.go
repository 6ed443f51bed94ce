package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/printer"
	"github.com/hashicorp/hcl/hcl/token"

	"meibo/cmd/meibo/config"
)

const (
	consulService = "consul.service"
	consulFolder  = "/etc/consul.d"
)

// consul takes the agent's place into account: meibo's in front of it, or instead of it.
func (p *Plan) consul(src Source, dns *config.Config) error {
	places := consulPlaces(src.Root)
	switch {
	case len(places) > 0:
	case src.Standalone:
		p.Refused = append(p.Refused, "-standalone: there is no Consul agent here: no "+consulFolder+" with files")
		return nil
	case asksAgent(dns):
		p.Notes = append(p.Notes, "dnsmasq asks a Consul agent, whose files are not in "+consulFolder+": it stays, and is asked as before")
		p.add(consulFile, agentPorts, nil)
		return nil
	default:
		return nil
	}
	paths := make([]string, len(places))
	for i, place := range places {
		paths[i] = src.Root + place
	}
	cfg, _, err := config.Load(config.Sources{Paths: paths, Partial: true, Registered: anyService})
	if err != nil {
		return fmt.Errorf("read the Consul agent's configuration: %w", err)
	}
	if src.Standalone {
		return p.replaceAgent(src, cfg)
	}
	p.Notes = append(p.Notes, "the Consul agent stays: "+membership(cfg)+". Names of its domain are asked of it and cached; -standalone replaces it, which takes this host out of that cluster")
	p.inFront(cfg, dns)
	return nil
}

// consulPlaces are the files and folders that the agent's unit names, or the usual one; those that are there.
func consulPlaces(root string) []string {
	var places []string
	words := strings.Fields(unit(root, consulService))
	for i, word := range words {
		name, value, ok := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !ok && i+1 < len(words) {
			value = words[i+1]
		}
		if (name == "config-dir" || name == "config-file") && strings.HasPrefix(word, "-") && !slices.Contains(places, value) {
			places = append(places, value)
		}
	}
	if len(places) == 0 {
		places = []string{consulFolder}
	}
	return slices.DeleteFunc(places, func(place string) bool { return len(consulFiles(root, place)) == 0 })
}

// consulFiles are the files of a place, as the host has them.
func consulFiles(root, place string) []string {
	info, err := os.Stat(root + place)
	switch {
	case err != nil:
		return nil
	case !info.IsDir():
		return []string{place}
	}
	var files []string
	entries, _ := os.ReadDir(root + place) // sorted
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".hcl" || ext == ".json") {
			files = append(files, filepath.Join(place, e.Name()))
		}
	}
	return files
}

// membership says in what the agent has part.
func membership(cfg *config.Config) string {
	switch c := cfg.Cluster; {
	case c.Server && c.BootstrapExpect > 1:
		return fmt.Sprintf("it is one of %d servers of datacenter %s", c.BootstrapExpect, cfg.Node.Datacenter)
	case c.Server:
		return fmt.Sprintf("it is a server of datacenter %s, and holds its catalog", cfg.Node.Datacenter)
	case len(c.RetryJoin)+len(c.RetryJoinExec) > 0:
		return fmt.Sprintf("it is a member of the cluster of datacenter %s (retry_join)", cfg.Node.Datacenter)
	}
	return fmt.Sprintf("it may be a member of a cluster of datacenter %s, which its files don't say", cfg.Node.Datacenter)
}

// agentPorts keeps meibo off the agent's ports.
const agentPorts = "# Made by `meibo migrate`: the Consul agent stays, and meibo is the cache in front of it.\n" +
	"# The agent has these ports; root's `meibo` commands need none.\nports {\n  http     = -1\n  server   = -1\n  serf_lan = -1\n}\n"

// asksAgent tells a configuration of dnsmasq that has a Consul agent asked on its usual port.
func asksAgent(dns *config.Config) bool {
	const port = 8600
	return slices.ContainsFunc(dns.Forward.Routes, func(r config.Route) bool {
		return slices.ContainsFunc(r.Servers, func(s netip.AddrPort) bool { return s.Addr().IsLoopback() && s.Port() == port })
	})
}

// inFront has meibo forward the agent's domains to it, and keeps off the agent's ports.
func (p *Plan) inFront(agent, dns *config.Config) {
	var b strings.Builder
	b.WriteString(agentPorts)
	at := agentDNS(agent)
	if !at.IsValid() {
		p.Notes = append(p.Notes, "the Consul agent answers no DNS (ports.dns): its names are answered by nobody, as before")
	} else {
		for _, domain := range []string{agent.Zone.Domain, agent.Zone.AltDomain} {
			domain = strings.ToLower(strings.TrimSuffix(domain, "."))
			if domain == "" || slices.ContainsFunc(dns.Forward.Routes, func(r config.Route) bool { return r.Suffix == domain+"." }) {
				continue // dnsmasq's configuration says so itself
			}
			fmt.Fprintf(&b, "forward %q { servers = [%q] }\n", domain, at)
		}
	}
	p.add(consulFile, b.String(), nil)
}

// agentDNS is where the agent answers DNS to this host; invalid where it doesn't.
func agentDNS(agent *config.Config) netip.AddrPort {
	if len(agent.Listen) == 0 {
		return netip.AddrPort{}
	}
	at := agent.Listen[0]
	for _, a := range agent.Listen {
		if a.Addr().IsLoopback() {
			at = a
			break
		}
	}
	switch {
	case !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is6():
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
}

// left are keys that must not follow a host out of its cluster: where its state is, whom it joins and with what key,
// what it serves there, and where DNS is answered, which the other files say.
var left = []string{
	"data_dir", "encrypt", "retry_join", "retry_join_wan", "start_join", "start_join_wan", "retry_interval", "retry_max", "bootstrap", "bootstrap_expect",
	"server", "encrypt_verify_incoming", "encrypt_verify_outgoing", "recursors", "recursor", "addresses", "client_addr", "pid_file", "user", "log_file",
}

// replaceAgent takes over what the agent's files say of this host and its services.
func (p *Plan) replaceAgent(src Source, agent *config.Config) error {
	p.Notes = append(p.Notes, "-standalone: the Consul agent is stopped, and this host leaves its cluster ("+membership(agent)+
		"): meibo's hosts and Consul's don't join each other. What the agent knows by its API alone (services registered there, keys, sessions) stays behind in its data_dir")
	p.Stop = append(p.Stop, consulService)
	n := 0
	for _, place := range consulPlaces(src.Root) {
		for _, path := range consulFiles(src.Root, place) {
			data, err := os.ReadFile(src.Root + path)
			if err != nil {
				return fmt.Errorf("read the Consul agent's configuration: %w", err)
			}
			convert := convertHCL
			if filepath.Ext(path) == ".json" {
				convert = convertJSON
			}
			text, without, err := convert(data)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if len(without) > 0 {
				p.Notes = append(p.Notes, fmt.Sprintf("%s: left out: %s", path, strings.Join(without, ", ")))
			}
			n++
			p.add(fmt.Sprintf("%s/60-consul-%02d-%s", folder, n, filepath.Base(path)), string(text), hideSecrets(filepath.Ext(path)))
		}
	}
	return nil
}

// secretKeys are the last parts of the keys whose values are never shown.
var secretKeys = func() map[string]bool {
	keys := map[string]bool{}
	for _, k := range config.Keys() {
		if k.Secret && !strings.Contains("."+k.Path, ".tokens.") { // all of tokens is one: its keys have plain names
			keys[k.Path[strings.LastIndexByte(k.Path, '.')+1:]] = true
		}
	}
	return keys
}()

func isSecret(key string) bool {
	return secretKeys[key] || strings.HasSuffix(key, "token") || key == "tokens"
}

const hidden = "(hidden)"

func hideSecrets(ext string) func([]byte) []byte {
	return func(data []byte) []byte {
		if data == nil {
			return nil
		}
		out, err := hideHCL(data)
		if ext == ".json" {
			out, err = hideJSON(data)
		}
		if err != nil {
			return []byte("(not shown: it can't be read, and may hold secrets)\n")
		}
		return out
	}
}

// convertHCL leaves the keys out that must not follow, comments and all else stay.
func convertHCL(data []byte) (out []byte, without []string, err error) {
	file, list, err := parseHCL(data)
	if err != nil {
		return nil, nil, err
	}
	list.Items = slices.DeleteFunc(list.Items, func(item *ast.ObjectItem) bool {
		key := keyOf(item)
		drop := slices.Contains(left, key)
		if drop {
			without = append(without, key)
			if item.LeadComment != nil {
				file.Comments = slices.DeleteFunc(file.Comments, func(g *ast.CommentGroup) bool { return g == item.LeadComment })
			}
			if item.LineComment != nil {
				file.Comments = slices.DeleteFunc(file.Comments, func(g *ast.CommentGroup) bool { return g == item.LineComment })
			}
		}
		return drop
	})
	return printed(file, without, err)
}

// parseHCL reads HCL 1, whose library panics on some texts.
func parseHCL(data []byte) (file *ast.File, list *ast.ObjectList, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("text that the parser can't read")
		}
	}()
	file, err = parser.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, nil, fmt.Errorf("no keys at the top of the file")
	}
	return file, list, nil
}

func printed(file *ast.File, without []string, err error) ([]byte, []string, error) {
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := printer.Fprint(&b, file); err != nil {
		return nil, nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), without, nil
}

func keyOf(item *ast.ObjectItem) string {
	if len(item.Keys) == 0 {
		return ""
	}
	name, _ := item.Keys[0].Token.Value().(string)
	return name
}

// hideHCL hides the values of secret keys, and comments, which may hold old ones.
func hideHCL(data []byte) ([]byte, error) {
	file, list, err := parseHCL(data)
	if err != nil {
		return nil, err
	}
	file.Comments = nil
	ast.Walk(list, func(n ast.Node) (ast.Node, bool) {
		item, ok := n.(*ast.ObjectItem)
		if !ok {
			return n, true
		}
		item.LeadComment, item.LineComment = nil, nil
		if slices.ContainsFunc(item.Keys, func(k *ast.ObjectKey) bool {
			name, _ := k.Token.Value().(string)
			return isSecret(name)
		}) {
			item.Assign = item.Pos()
			item.Val = &ast.LiteralType{Token: token.Token{Type: token.STRING, Text: `"` + hidden + `"`, Pos: item.Pos()}}
			return n, false
		}
		return n, true
	})
	out, _, err := printed(file, nil, nil)
	return out, err
}

func convertJSON(data []byte) (out []byte, without []string, err error) {
	var all map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&all); err != nil {
		return nil, nil, fmt.Errorf("parse JSON: %w", err)
	}
	for _, key := range left {
		if _, has := all[key]; has {
			delete(all, key)
			without = append(without, key)
		}
	}
	out, err = indented(all)
	return out, without, err
}

func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

func hideJSON(data []byte) ([]byte, error) {
	var all any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&all); err != nil {
		return nil, err
	}
	return indented(hideIn(all))
}

func hideIn(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if isSecret(key) {
				v[key] = hidden
			} else {
				v[key] = hideIn(inner)
			}
		}
	case []any:
		for i := range v {
			v[i] = hideIn(v[i])
		}
	}
	return v
}
