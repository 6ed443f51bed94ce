package cluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/gossip"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
	"meibo/cluster/view"
)

// Tags that a host tells of itself by gossip.
const (
	tagRole     = membership.TagRole
	tagPort     = "port" // of link
	tagExpect   = "expect"
	tagRaft     = "raft"
	tagHistory  = "history"
	tagNonVoter = "nonvoter"
	tagVersion  = "build"
	tagProgram  = "meibo"

	roleServer = "consul"
	roleAgent  = "node"
	// historyDigits is how much of a history's ID is told: enough to tell two
	// apart in few bytes.
	historyDigits = 16
)

// neighbourPause is between rounds of asking neighbours.
const neighbourPause = time.Second

// joinedFile in DataDir says that this host, which nothing in its configuration
// tells to join others, has done so by command.
const joinedFile = "joined"

// Errors of what is asked of members.
var (
	// ErrAlone means that this host speaks to nobody.
	ErrAlone = errors.New("this host speaks to no others")
	// ErrUnknownMember means that gossip knows nobody of that name.
	ErrUnknownMember = errors.New("no such member")
)

// gossipConfig is Config.Gossip with this host filled in.
func (n *Node) gossipConfig() gossip.Config {
	cfg := n.cfg.Gossip
	cfg.ID, cfg.Name, cfg.Datacenter = n.cfg.NodeID, n.cfg.NodeName, n.cfg.Datacenter
	cfg.Keyring, cfg.Tags, cfg.Logger = n.keyring, n.tags(), n.logger
	if n.cfg.DataDir != "" && cfg.Dir == "" {
		cfg.Dir = filepath.Join(n.cfg.DataDir, "serf")
	}
	cfg.Network, cfg.OnLife, cfg.Lives = n.cfg.Network, n.view.OnLifeChange, n.net.Load().table().Lives()
	cfg.Confirmed = n.confirmedDead
	return cfg
}

// tags are what this host tells of itself at the start.
func (n *Node) tags() map[string]string {
	tags := map[string]string{
		tagRole: roleAgent, tagVersion: n.cfg.Version, "vsn": "2",
	}
	if n.cfg.ServerPort > 0 {
		tags[tagPort] = strconv.Itoa(n.cfg.ServerPort)
	}
	if n.cfg.Program != "" {
		tags[tagProgram] = n.cfg.Program
	}
	if n.cfg.Server {
		tags[tagRole] = roleServer
		if n.cfg.BootstrapExpect > 0 {
			tags[tagExpect] = strconv.Itoa(n.cfg.BootstrapExpect)
		}
	}
	return tags
}

// meetsOthers reports whether the configuration has this host speak to others:
// it is told to join some, or to be a server of some, or it has joined some
// before.
func (n *Node) meetsOthers() bool {
	if n.cfg.Dev && !n.hasJoin() || n.whyAlone() != nil {
		return false
	}
	return n.hasJoin() || n.cfg.Server || n.hasJoined()
}

// expectsOthers reports whether there should be hosts that may know more of the
// catalog than this one does when it starts.
func (n *Node) expectsOthers() bool {
	return n.meetsOthers() && (n.hasJoin() || n.hasJoined() || n.cfg.BootstrapExpect > 1)
}

// whyAlone is why this host may speak to nobody, whoever asks; nil if it may.
func (n *Node) whyAlone() error {
	bind := n.cfg.Gossip.Bind.Addr()
	keys, _ := n.keyring.Keys()
	switch {
	case !bind.IsValid():
		return fmt.Errorf("%w: it has no address to gossip on", ErrAlone)
	case len(keys) > 0, n.cfg.InTheClear, bind.IsLoopback():
		return nil
	}
	return fmt.Errorf("%w: it has no key; set encrypt to the output of `meibo keygen` on every host, or to \"none\" to speak in the clear", ErrAlone)
}

// requestNetwork has the network come up.
func (n *Node) requestNetwork() { n.wantOnce.Do(func() { close(n.wanted) }) }

// hasJoined reports whether this host joined others by command once.
func (n *Node) hasJoined() bool {
	select {
	case <-n.joined:
		return true
	default:
	}
	if n.cfg.DataDir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(n.cfg.DataDir, joinedFile))
	return err == nil
}

// setJoined notes that this host has met others and isn't alone any more.
func (n *Node) setJoined() {
	n.joinOnce.Do(func() {
		if n.isProvisional() && n.cfg.DataDir != "" {
			path := filepath.Join(n.cfg.DataDir, joinedFile)
			if err := os.WriteFile(path, []byte("this host belongs to a cluster\n"), 0o600); err != nil {
				n.logger.Error("cannot keep that this host joined others; after a restart it is alone again", "path", path, "err", err)
			}
		}
		close(n.joined)
	})
}

// Member is a host of the cluster, as gossip knows it.
type Member = membership.Member

// Members returns all that gossip knows of; this host alone where there is no
// gossip.
func (n *Node) Members() []*Member {
	if w, _ := n.network(); w != nil {
		return w.gossip.Members().Members()
	}
	record := n.record()
	addr, _ := netip.ParseAddr(record.Address)
	tags := n.tags()
	tags["id"], tags["dc"] = record.ID, record.Datacenter
	if n.holdsCatalog() && n.cfg.ServerPort > 0 { // else it is a server to nobody
		tags[tagRole] = roleServer
	}
	return []*Member{{
		Node:   membership.Node{ID: record.ID, Name: record.Node, Datacenter: record.Datacenter, Addr: addr, Port: n.cfg.Gossip.Bind.Port(), Tags: tags},
		Status: membership.Alive, Told: membership.Alive,
	}}
}

// MemberOf is the member with the node ID; nil if gossip doesn't know it.
func (n *Node) MemberOf(nodeID string) *Member {
	if w, _ := n.network(); w != nil {
		return w.gossip.Members().ByID(nodeID)
	}
	if self := n.Members()[0]; self.ID == nodeID {
		return self
	}
	return nil
}

// Stream is the server that tells this host of the catalog, by its link address,
// and since when; "" when it is none but this host.
func (n *Node) Stream() (addr string, since time.Time) {
	if w, _ := n.network(); w != nil {
		return w.feed.Server()
	}
	return "", time.Time{}
}

// Guarded reports whether so many members failed at once that this host suspects
// itself.
func (n *Node) Guarded() bool {
	w, _ := n.network()
	return w != nil && w.gossip.Members().Guarded()
}

// Join meets the hosts at the addresses, "host" or "host:port", and returns how
// many it reached. A host that was alone, with nothing configured that says
// otherwise, drops the catalog that it began.
func (n *Node) Join(ctx context.Context, addrs []string) (int, error) {
	if err := n.whyAlone(); err != nil {
		return 0, err
	}
	if n.cfg.Dev {
		return 0, fmt.Errorf("%w: it was started with -dev", ErrAlone)
	}
	n.requestNetwork()
	w, err := n.awaitNetwork(ctx)
	if err != nil {
		return 0, err
	}
	reached, err := w.gossip.Join(ctx, addrs)
	if reached > 0 {
		n.setJoined()
	}
	return reached, err
}

// awaitNetwork waits until there is one, a few seconds at most.
func (n *Node) awaitNetwork(ctx context.Context) (*network, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.HoldTime)
	defer cancel()
	for {
		w, changed := n.network()
		if w != nil {
			return w, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(ErrAlone, n.NetworkError())
		}
	}
}

// Leave tells the others that this host goes for good: a server first gives up
// its vote. It returns when they have been told; the caller ends the node.
func (n *Node) Leave(ctx context.Context) error {
	w, _ := n.network()
	if w == nil {
		return nil
	}
	if s, _, _ := n.running(); s != nil && n.cfg.Server && len(s.Replica().Servers()) > 1 {
		n.setLeaving(true)
		if err := s.Leave(ctx); err != nil {
			n.logger.Warn("this server keeps its vote while it leaves; the leader will take it", "err", err)
		}
	}
	if n.cfg.DataDir != "" {
		os.Remove(filepath.Join(n.cfg.DataDir, joinedFile))
	}
	n.goodbye.set(true)
	if err := w.gossip.Leave(ctx); err != nil {
		n.goodbye.set(false)
		n.setLeaving(false)
		return err
	}
	return nil
}

// lifeTime is how long a member that is to leave has for a sign of life.
const lifeTime = time.Second

// ForceLeave declares a failed member to have left, with prune to be forgotten. One that
// gives a sign of life stays; one that doesn't, and isn't found dead yet, has left
// when it is.
func (n *Node) ForceLeave(ctx context.Context, name string, prune bool) (lives bool, err error) {
	w, _ := n.network()
	if w == nil && name == n.cfg.NodeName {
		return true, nil // as where there are others
	}
	if w == nil {
		return false, fmt.Errorf("%w: %q", ErrUnknownMember, name)
	}
	m := w.gossip.Members().ByName(name)
	if m == nil {
		return false, fmt.Errorf("%w: %q", ErrUnknownMember, name)
	}
	if !m.HeldUntil.IsZero() {
		return true, nil // it is back, and would be left out for good
	}
	if err := w.gossip.ForceLeave(name, prune); err != nil {
		return false, err
	}
	if m = w.gossip.Members().ByName(name); m == nil || !m.Lives() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lifeTime)
	defer cancel()
	_, silent := w.gossip.Ping(ctx, name)
	return silent == nil, nil
}

// confirmedDead reports whether a server that has a leader says so of the node.
func (n *Node) confirmedDead(nodeID string) bool {
	return n.view.Load().Fresh() && n.view.CatalogSaysDead(nodeID)
}

// liveness is gossip as the view sees it.
type liveness struct{ n *Node }

// Life implements catalog.Liveness.
func (l liveness) Life(nodeID string) catalog.Life {
	return lifeOf[l.n.net.Load().table().Life(nodeID)]
}

// living are the node IDs of the members that are alive.
func (n *Node) living() iter.Seq[string] {
	w, _ := n.network()
	if w == nil {
		return func(func(string) bool) {}
	}
	return func(yield func(string) bool) {
		for _, m := range w.gossip.Members().Members() {
			if m.Lives() && !yield(m.ID) {
				return
			}
		}
	}
}

// lifeOf is a member's status in the words of the catalog.
var lifeOf = [...]catalog.Life{
	membership.NeverSeen: catalog.NeverSeen, membership.Alive: catalog.Alive, membership.Suspect: catalog.Suspect,
	membership.Failed: catalog.Failed, membership.Left: catalog.Left,
}

// lifeOfAll is what is known of the lives of all hosts, for the view's file and
// for neighbours.
func (n *Node) lifeOfAll() []view.LifeOf {
	var lives []view.LifeOf
	for _, l := range n.net.Load().table().Lives() {
		lives = append(lives, view.LifeOf{NodeID: l.ID, Name: l.Name, Life: lifeOf[l.Status], Since: l.Since})
	}
	return lives
}

// restoreLives takes what the view's file or a neighbour says of the lives of
// nodes. It counts for those that gossip hasn't heard of.
func (n *Node) restoreLives(told []view.LifeOf) {
	var lives []membership.Life
	for _, l := range told {
		if s := slices.Index(lifeOf[:], l.Life); s > 0 {
			lives = append(lives, membership.Life{ID: l.NodeID, Name: l.Name, Status: membership.Status(s), Since: l.Since})
		}
	}
	n.mu.Lock()
	s := *n.net.Load()
	if s.network == nil {
		s.last = s.last.Restored(lives)
		n.net.Store(&s)
	}
	n.mu.Unlock()
	if s.network != nil {
		s.network.gossip.Restore(lives)
	}
}

// watchMembers keeps up with who is there until ctx ends: it says once that this
// host has met others, asks neighbours for what a host without a view lacks, and
// tells of two catalogs in one cluster.
func (w *network) watchMembers(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.meet(ctx) })
	alarmed := ""
	for {
		members := w.gossip.Members()
		histories := historiesOf(members.Role(roleServer), nil)
		if len(histories) > 1 && fmt.Sprint(histories) != alarmed {
			histories = w.livingHistories(ctx)
		}
		if len(histories) > 1 {
			if text := fmt.Sprint(histories); text != alarmed {
				alarmed = text
				w.logger.Error("servers of two catalogs meet here; each host stays with its own: take the servers that should not be here out of the cluster",
					"histories", text)
			}
		} else {
			alarmed = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-members.Changed():
		}
		if !retry.Wait(ctx, 200*time.Millisecond) { // a burst is one change
			return nil
		}
	}
}

// meet waits until this host has met others. One that knows nothing of the
// catalog, or only of one that has just begun, asks them for what they know,
// before it has a stream and after: the servers may be gone or may have begun
// anew themselves.
func (w *network) meet(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-w.gossip.Joined():
	}
	w.node.setJoined()
	if err := w.node.keyring.SetMet(); err != nil {
		w.logger.Error("cannot keep that the keyring is the cluster's", "err", err)
	}
	told := make(map[string]bool) // who has, by node ID
	var due time.Time
	for v, pause := w.node.view, neighbourPause; v.Lacks(); {
		changed := w.gossip.Members().Changed()
		based := v.Load().HasBase()
		// Who knows the catalog itself has time, and most know no more than it does.
		switch {
		case !based:
			w.askForAll(ctx, make(map[string]bool), v.Lacks)
		case !time.Now().Before(due):
			w.askForAll(ctx, told, v.Lacks)
			due, pause = time.Now().Add(pause), 2*pause
		}
		if based && v.Lacks() && !v.Young() {
			v.Learned() // no neighbour knows either
		}
		// The first to be met know nothing where servers begin anew together.
		again := time.After(neighbourPause)
		if !retry.Wait(ctx, neighbourPause/10) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// askForAll asks neighbours for all they know, but those who have told it, one after
// the other, until this host lacks nothing more. Agents come first: what the servers
// know, a stream tells.
func (w *network) askForAll(ctx context.Context, told map[string]bool, lacks func() bool) {
	members := shuffled(w.gossip.Members().Members())
	rank := func(m *Member) int {
		if isServer(m) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(members, func(a, b *Member) int { return rank(a) - rank(b) })
	asked := 0
	for _, m := range members {
		if asked == neighboursAskedForAll || ctx.Err() != nil || !lacks() {
			return
		}
		if m.ID != w.node.cfg.NodeID && m.Status == membership.Alive && !told[m.ID] {
			asked++
			_, told[m.ID] = w.askNeighbour(ctx, m, "")
		}
	}
}

// historiesSettle is how long servers that restarted have to be heard of with the
// history that they follow now.
const historiesSettle = 2 * time.Second

// livingHistories are the histories of the servers that give a sign of life: after
// most of the servers were lost gossip has dead ones for alive, and old words of
// those that live.
func (w *network) livingHistories(ctx context.Context) []string {
	if !retry.Wait(ctx, historiesSettle) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lifeTime)
	defer cancel()
	var mu sync.Mutex // guards answers
	answers := make(map[string]bool)
	var wg sync.WaitGroup
	for _, m := range w.gossip.Members().Role(roleServer) {
		if followsHistory(m) {
			wg.Go(func() {
				_, err := w.gossip.Ping(ctx, m.Name)
				mu.Lock()
				defer mu.Unlock()
				answers[m.ID] = err == nil
			})
		}
	}
	wg.Wait()
	return historiesOf(w.gossip.Members().Role(roleServer), answers)
}

// followsHistory reports whether the member is a server that is said to live and to
// follow a history.
func followsHistory(m *Member) bool {
	return m.Tags[tagHistory] != "" && m.Status == membership.Alive && isServer(m)
}

// historiesOf are the histories that living servers say they follow; with answers,
// those of the servers alone, by ID, that gave one.
func historiesOf(members []*Member, answers map[string]bool) []string {
	var list []string
	for _, m := range members {
		if h := m.Tags[tagHistory]; followsHistory(m) && (answers == nil || answers[m.ID]) && !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	slices.Sort(list)
	return list
}

// shuffled returns the members in a random order.
func shuffled(members []*Member) []*Member {
	members = slices.Clone(members)
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members
}
