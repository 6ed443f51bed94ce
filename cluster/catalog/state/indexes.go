package state

import (
	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
)

// Keys of the index table: what kind of result an index is of.
const (
	ixNodes        = "nodes"         // the list of nodes
	ixServices     = "services"      // the list of names and tags
	ixChecks       = "checks"        // all checks
	ixNodesGone    = "nodes-gone"    // when last a node went: the index of one that isn't there
	ixServicesGone = "services-gone" // the same for service names
	ixTombstones   = "tombstones"
)

func ixState(status string) string      { return "state/" + status }
func ixService(name string) string      { return "service/" + fold(name) }
func ixNodeServices(node string) string { return "node-services/" + fold(node) }
func ixNodeChecks(node string) string   { return "node-checks/" + fold(node) }

// touch says that a kind of result changed with this command.
func (w *writer) touch(keys ...string) {
	for _, k := range keys {
		w.insert(tableIndexes, &indexRow{Key: k, Value: w.index})
	}
}

func (w *writer) dropIndex(k string) {
	if row := first(w.tx, tableIndexes, byID, []byte(k)); row != nil {
		w.remove(tableIndexes, row)
	}
}

// watchIndex returns the value of the index and whether it exists, and adds
// its channel to ws. Where it does not exist the channel is that of its
// neighbourhood: it may be closed without need.
func watchIndex(tx *memdb.Txn, ws catalog.Watch, k string) (uint64, bool) {
	ch, row, err := tx.FirstWatch(tableIndexes, byID, []byte(k))
	if err != nil {
		panic(err) // a mistake in the schema
	}
	if ws != nil {
		ws.Add(ch)
	}
	if row == nil {
		return 0, false
	}
	return row.(*indexRow).Value, true
}
