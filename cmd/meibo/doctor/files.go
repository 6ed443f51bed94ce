package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"meibo/cmd/meibo/config"
	"meibo/resolver/resolvconf"
)

const (
	resolvedFile = "/run/systemd/resolve/resolv.conf"
	daemonUser   = "meibo"
)

func configuration(_ context.Context, e *exam) []Finding {
	if e.paths == nil {
		return []Finding{warning("there is no configuration: no "+defaultConfig, "name the daemon's files with -config-dir; README, \"A host's resolver in five minutes\", begins them")}
	}
	names := strings.Join(e.paths, " ")
	mend := "`meibo validate " + names + "` tells each fault with file, line and key"
	if e.faults != nil {
		if f, is := notAllowed("the configuration", e.faults); is {
			return []Finding{f}
		}
		first, more, _ := strings.Cut(e.faults.Error(), "\n")
		if n := strings.Count(more, "\n"); more != "" {
			first += fmt.Sprintf(" (and %d lines more)", n+1)
		}
		return []Finding{critical("the daemon would not start: "+first, mend)}
	}
	var out []Finding
	for _, l := range e.config.Agent.LeftOut {
		out = append(out, warning("the daemon would start without "+l.What()+": "+l.Why(), mend))
	}
	for _, w := range e.warnings {
		if w.Serious && w.Key != "listen" && w.Key != "ports.dns" && w.Key != "data_dir" { // those are other checks'
			out = append(out, warning(w.String(), mend))
		}
	}
	return orOK(out, "%s: no fault", names)
}

// permissions looks who may read secrets and change what the daemon trusts.
func permissions(_ context.Context, e *exam) []Finding {
	if e.config == nil {
		return []Finding{unknown("who may read which files is not known without the configuration", "see configuration")}
	}
	var out []Finding
	for _, path := range e.config.Files {
		out = append(out, e.configFile(path)...)
	}
	if e.config.DataDir != "" {
		out = append(out, e.dataDir(e.config.DataDir)...)
	}
	if path := e.config.KeyringPath(); path != "" {
		info, err := os.Stat(e.at(path))
		if f, is := notAllowed(path, err); is {
			out = append(out, f)
		} else if err == nil && info.Mode().Perm()&0o077 != 0 {
			out = append(out, critical(fmt.Sprintf("%s, which holds the cluster's key, is open to others (mode %04o)", path, info.Mode().Perm()),
				"`chmod 0600 "+path+"`, then change the key: `meibo keyring` (install, use, remove)"))
		}
	}
	return orOK(out, "secrets and %s are the daemon's alone", orWord(e.config.DataDir, "files"))
}

// configFile looks at one file of the configuration, by its path on this machine.
func (e *exam) configFile(at string) (out []Finding) {
	info, err := os.Stat(at)
	if err != nil {
		return nil // gone since it was read
	}
	path := strings.TrimPrefix(at, e.Root)
	mode := info.Mode().Perm()
	if mode&0o002 != 0 {
		out = append(out, critical(fmt.Sprintf("anybody may change %s (mode %04o)", path, mode), "`chmod o-w "+path+"`"))
	}
	if key := e.secretIn(at); key != "" && mode&0o004 != 0 {
		out = append(out, critical(fmt.Sprintf("anybody on this host may read %s, which holds %s (mode %04o)", path, key, mode),
			fmt.Sprintf("`chown root:%s %s; chmod 0640 %[2]s`", e.group(), path)))
	}
	if uid, gid, is := e.runsAs(); is && mode&0o004 == 0 {
		owner, group := ownerOf(info)
		if (owner != uid || mode&0o400 == 0) && (group != gid || mode&0o040 == 0) {
			out = append(out, critical(fmt.Sprintf("the daemon's user, %s, can't read %s (mode %04o, owner %d:%d)", daemonUser, path, mode, owner, group),
				fmt.Sprintf("`chown root:%s %s; chmod 0640 %[2]s`", daemonUser, path)))
		}
	}
	return out
}

// secretIn is the key whose secret a file holds, "" for none.
func (e *exam) secretIn(at string) string {
	text, err := os.ReadFile(at)
	if err != nil {
		return ""
	}
	c := e.config
	for _, s := range []struct {
		key   string
		value config.Secret
	}{
		{"encrypt", c.Cluster.Encrypt}, {"acl.tokens.initial_management", c.ACL.Tokens.InitialManagement}, {"acl.tokens.agent", c.ACL.Tokens.Agent},
		{"acl.tokens.agent_recovery", c.ACL.Tokens.AgentRecovery}, {"acl.tokens.default", c.ACL.Tokens.Default},
		{"acl.tokens.replication", c.ACL.Tokens.Replication}, {"acl.tokens.dns", c.ACL.Tokens.DNS},
	} {
		if v := s.value.Reveal(); v != "" && strings.Contains(string(text), v) {
			return "the secret " + s.key
		}
	}
	return ""
}

func (e *exam) dataDir(dir string) (out []Finding) {
	info, err := os.Stat(e.at(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // made at the first start
	case err != nil:
		f, _ := notAllowed(dir, err)
		f.Status, f.What = Unknown, orWord(f.What, dir+" can't be looked at: "+err.Error())
		return []Finding{f}
	case !info.IsDir():
		return []Finding{critical("data_dir, "+dir+", is no folder", "name another one, or move away what is there")}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		out = append(out, warning(fmt.Sprintf("data_dir, %s, is open to others (mode %04o): keys and tokens are kept there", dir, mode), "`chmod 0700 "+dir+"`"))
	}
	if uid, _, is := e.runsAs(); is {
		if owner, _ := ownerOf(info); owner != uid {
			out = append(out, critical(fmt.Sprintf("data_dir, %s, is of uid %d, not of the daemon's user, %s: nothing is kept", dir, owner, daemonUser),
				fmt.Sprintf("`chown -R %s:%[1]s %s`, then `systemctl restart meibo`", daemonUser, dir)))
		}
	}
	return out
}

// runsAs is the user that the package's unit runs the daemon as, where it is installed.
func (e *exam) runsAs() (uid, gid int, is bool) {
	if !e.installed(serviceUnit) {
		return 0, 0, false
	}
	text, _ := e.read("/etc/passwd")
	for line := range strings.Lines(text) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[0] == daemonUser {
			uid, err1 := strconv.Atoi(f[2])
			gid, err2 := strconv.Atoi(f[3])
			return uid, gid, err1 == nil && err2 == nil
		}
	}
	return 0, 0, false
}

// group is the one that files with secrets are given to.
func (e *exam) group() string {
	if _, _, is := e.runsAs(); is {
		return daemonUser
	}
	return "root"
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	if s, is := info.Sys().(*syscall.Stat_t); is {
		return int(s.Uid), int(s.Gid)
	}
	return -1, -1
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

// resolvConf looks whom the host's programs ask.
func resolvConf(_ context.Context, e *exam) []Finding {
	const path = resolvconf.DefaultPath
	if out := e.unreadable(); out != nil {
		return out
	}
	var out []Finding
	switch e.resolv.State {
	case resolvconf.Overwritten:
		out = append(out, critical(path+" was overwritten by others since `meibo resolv install`", e.resolv.Next))
	case resolvconf.Unfinished:
		out = append(out, critical("a change of "+path+" was killed in the middle", "`meibo resolv restore`, then `meibo resolv install`"))
	}
	if strings.HasSuffix(e.resolv.File, "immutable") {
		out = append(out, warning(path+" is immutable: whoever is to change it, `meibo resolv` too, fails", "`chattr -i "+path+"`"))
	}
	out = append(out, e.servers()...)
	out = append(out, e.options()...)
	for _, f := range e.file.Faults {
		out = append(out, warning(path+", "+f, "take the line out, or mend it: programs ignore it"))
	}
	return orOK(out, "%s; it names %s; owner: %s (%s)", e.resolv.File, joined(e.file.Servers), e.resolv.Owner, e.resolv.Why)
}

// unreadable is why programs read nothing in resolv.conf.
func (e *exam) unreadable() []Finding {
	const path, install = resolvconf.DefaultPath, "`meibo resolv install` writes it"
	info, err := os.Lstat(filepath.Join(e.Root, path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{warning("there is no "+path+": programs ask 127.0.0.1 or nobody, each as it likes", install)}
	case err == nil && info.Mode()&fs.ModeSymlink != 0 && errors.Is(e.fileErr, fs.ErrNotExist):
		to, _ := os.Readlink(filepath.Join(e.Root, path))
		return []Finding{critical(path+" is a link to "+to+", which is not there: no program knows a name server", "start who writes it, or remove the link; then "+install)}
	case e.fileErr != nil:
		return []Finding{critical(e.fileErr.Error(), "`ls -lL "+path+"`: it must be a file that everybody may read; `meibo resolv install` writes one")}
	}
	if target, err := os.Stat(e.at(path)); err == nil && target.Mode().Perm()&0o004 == 0 {
		return []Finding{critical(fmt.Sprintf("%s is not readable by all (mode %04o): only root's programs resolve names", path, target.Mode().Perm()), "`chmod 0644 "+path+"`")}
	}
	return nil
}

// servers judges those that resolv.conf names.
func (e *exam) servers() (out []Finding) {
	const path = resolvconf.DefaultPath
	servers := e.file.Servers
	at := slices.Index(servers, e.Server)
	switch {
	case at < 0 && e.stubAsksUs(servers): // of systemd-resolved, which asks us
	case at < 0 && len(servers) == 0:
		out = append(out, critical(path+" names no server", "`meibo resolv install` writes it"))
	case at < 0:
		owner := fmt.Sprintf("%s (%s)", e.resolv.Owner, e.resolv.Why)
		out = append(out, warning(fmt.Sprintf("programs ask %s, not meibo at %s; the file's owner: %s", joined(servers), e.Server, owner),
			"`meibo resolv install` has them ask meibo, `meibo resolv restore` takes it back"))
	case at > 0:
		out = append(out, critical(fmt.Sprintf("%s names %s before meibo, %s, which is asked only when that is silent", path, joined(servers[:at]), e.Server),
			"`meibo resolv install`, or take the other lines out"))
	case len(servers) > 1:
		out = append(out, warning(fmt.Sprintf("%s names %s beside meibo: programs that ask all at once (musl), and any while meibo is slow, get those answers, and names of services fail", path, joined(servers[1:])),
			"take them out, or `meibo resolv install`; meibo knows the true servers without that file"))
	}
	if len(servers) > 3 {
		out = append(out, warning(fmt.Sprintf("%s names %d servers: the C library takes the first three", path, len(servers)), "leave one of them: meibo"))
	}
	return out
}

// stubAsksUs reports whether programs ask systemd-resolved, and that asks meibo.
func (e *exam) stubAsksUs(servers []netip.Addr) bool {
	for _, s := range servers {
		if s != stub && s != netip.AddrFrom4([4]byte{127, 0, 0, 54}) {
			return false
		}
	}
	return len(servers) > 0 && e.resolvedAsksUs()
}

var stub = netip.AddrFrom4([4]byte{127, 0, 0, 53})

// resolvedAsksUs reports whether meibo is a server of systemd-resolved.
func (e *exam) resolvedAsksUs() bool {
	text, err := e.read(resolvedFile)
	return err == nil && slices.Contains(resolvconf.Parse(text).Servers, e.Server)
}

// options judges what else resolv.conf says.
func (e *exam) options() (out []Finding) {
	const path = resolvconf.DefaultPath
	for _, o := range e.file.Options {
		name, value, _ := strings.Cut(o, ":")
		n, _ := strconv.Atoi(value)
		switch {
		case name == "ndots" && n > 1 && len(e.file.Search) > 0:
			out = append(out, warning(fmt.Sprintf("%s says ndots:%d: a name with fewer dots is first asked for below each of %d search domains", path, n, len(e.file.Search)),
				"take ndots out, or end names with a dot"))
		case name == "rotate" && len(e.file.Servers) > 1:
			out = append(out, warning(path+" says rotate: each program asks another server, and only one of them knows names of services", "take rotate out, and all servers but meibo"))
		case name == "use-vc":
			out = append(out, warning(path+" says use-vc: each lookup makes a TCP connection", "take use-vc out"))
		case name == "timeout" && n == 0 || name == "attempts" && n == 0:
			out = append(out, warning(path+" says "+o+", which leaves no time for an answer", "take it out"))
		}
	}
	const most = 6
	if len(e.file.Search) > most {
		out = append(out, warning(fmt.Sprintf("%s names %d search domains: older C libraries take %d, and each costs a question for each name", path, len(e.file.Search), most), "leave those that are used"))
	}
	return out
}

// nsswitch looks whether programs of the C library come to DNS at all.
func nsswitch(_ context.Context, e *exam) []Finding {
	const path = "/etc/nsswitch.conf"
	text, err := e.read(path)
	if err != nil {
		if f, is := notAllowed(path, err); is {
			return []Finding{f}
		}
		return []Finding{ok("there is no %s: the C library asks files, then DNS", path)}
	}
	words := hostsLine(text)
	if words == nil {
		return []Finding{ok("%s has no line for hosts: the C library asks files, then DNS", path)}
	}
	line := "hosts: " + strings.Join(words, " ")
	dns := slices.Index(words, "dns")
	asksResolved := slices.Contains(words, "resolve") && e.exists(resolvedFile)
	if dns < 0 && !asksResolved {
		return []Finding{critical(fmt.Sprintf("%s says %q: programs never ask DNS", path, line), "write \"hosts: files dns\" there")}
	}
	if dns < 0 {
		dns = len(words)
	}
	var out []Finding
	for i := 1; i < dns; i++ {
		if !returns(words[i], "NOTFOUND") {
			continue
		}
		switch who := words[i-1]; {
		case who == "resolve" && !e.exists(resolvedFile): // does not run, and so is passed over
		case who == "resolve" && e.resolvedAsksUs():
		case who == "resolve":
			out = append(out, warning(fmt.Sprintf("%s says %q: programs ask systemd-resolved, whatever resolv.conf says, and that does not ask meibo", path, line),
				"`meibo resolv install` has systemd-resolved ask meibo"))
		case strings.HasPrefix(who, "mdns"):
			out = append(out, warning(fmt.Sprintf("%s says %q: names below .local are asked of multicast DNS alone, never of meibo", path, line),
				"take "+words[i]+" behind "+who+" out if names below .local are in DNS"))
		default:
			out = append(out, critical(fmt.Sprintf("%s says %q: what %s does not know is never asked of DNS", path, line, who), "take "+words[i]+" out"))
		}
	}
	return orOK(out, "%s", line)
}

// hostsLine are the words of the line for hosts, an action such as [NOTFOUND=return] being one; nil: there is none.
func hostsLine(text string) (words []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, is := strings.CutPrefix(strings.TrimSpace(line), "hosts:")
		if !is {
			continue
		}
		inside := false
		for _, w := range strings.Fields(strings.NewReplacer("[", " [", "]", "] ").Replace(rest)) {
			if inside {
				words[len(words)-1] += " " + w
			} else {
				words = append(words, w)
			}
			inside = strings.HasPrefix(words[len(words)-1], "[") && !strings.HasSuffix(w, "]")
		}
	}
	return words
}

// returns reports whether an action ends the search at a result other than success.
func returns(action, result string) bool {
	for _, a := range strings.Fields(strings.Trim(strings.ReplaceAll(action, " =", "="), "[]")) {
		on, what, _ := strings.Cut(strings.ToUpper(a), "=")
		not, is := strings.CutPrefix(on, "!")
		if what == "RETURN" && (on == result || is && not != result) {
			return true
		}
	}
	return false
}

// docker looks whom containers ask.
func docker(_ context.Context, e *exam) []Finding {
	const path = "/etc/docker/daemon.json"
	const apply = "`meibo resolv docker -apply` has containers ask meibo, `meibo resolv docker` shows how"
	if !e.anyOf("/etc/docker", "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/run/docker.sock") {
		return []Finding{ok("there is no Docker on this host")}
	}
	text, err := e.read(path)
	if f, is := notAllowed(path, err); is {
		return []Finding{f}
	}
	var settings struct{ DNS []string }
	if err == nil && strings.TrimSpace(text) != "" {
		if err := json.Unmarshal([]byte(text), &settings); err != nil {
			return []Finding{critical(fmt.Sprintf("%s is no JSON (%v): Docker will not start", path, err), "mend the file: `dockerd --validate --config-file "+path+"` checks it")}
		}
	}
	for _, s := range settings.DNS {
		if a, err := netip.ParseAddr(s); err == nil && a.IsLoopback() {
			return []Finding{critical(fmt.Sprintf("%s names %s for containers, which is each container itself", path, s), apply)}
		}
	}
	if len(settings.DNS) > 0 {
		return []Finding{ok("containers ask %s", strings.Join(settings.DNS, ", "))}
	}
	// Of systemd-resolved's stub alone Docker knows where the true servers are.
	local := len(e.file.Servers) > 0 && !slices.ContainsFunc(e.file.Servers, func(a netip.Addr) bool { return !a.IsLoopback() })
	if local && !slices.Equal(e.file.Servers, []netip.Addr{stub}) {
		return []Finding{warning(fmt.Sprintf("%s has no dns, and %s names this host alone: containers ask public servers, 8.8.8.8 and 8.8.4.4, which know no service and may not be reached", path, resolvconf.DefaultPath), apply)}
	}
	return []Finding{ok("containers ask what %s names", resolvconf.DefaultPath)}
}

// kubelet hands its file's servers to pods; CoreDNS would ask itself.
func kubelet(_ context.Context, e *exam) []Finding {
	const path, ours = "/var/lib/kubelet/config.yaml", "/run/meibo/resolv.conf"
	text, err := e.read(path)
	if f, is := notAllowed(path, err); is {
		return []Finding{f}
	}
	if err != nil {
		return []Finding{ok("there is no kubelet on this host")}
	}
	file := resolvconf.DefaultPath
	for line := range strings.Lines(text) {
		if value, is := strings.CutPrefix(line, "resolvConf:"); is {
			file = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	given, err := e.read(file)
	if err != nil {
		return []Finding{critical(fmt.Sprintf("%s has pods read %s: %v", path, file, err), "set resolvConf: "+ours+" there, and `systemctl restart kubelet`")}
	}
	if slices.ContainsFunc(resolvconf.Parse(given).Servers, netip.Addr.IsLoopback) {
		return []Finding{warning(fmt.Sprintf("%s has pods read %s, which names this host: CoreDNS in a pod asks itself then", path, file), "set resolvConf: "+ours+" there, and `systemctl restart kubelet`")}
	}
	return []Finding{ok("pods read %s", file)}
}
