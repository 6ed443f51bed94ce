package state

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
)

// Tables. Rows are immutable once inserted.
const (
	tableNodes      = "nodes"      // *catalog.Node
	tableServices   = "services"   // *catalog.Service
	tableChecks     = "checks"     // *catalog.Check
	tableIndexes    = "indexes"    // *indexRow
	tableTombstones = "tombstones" // *catalog.Tombstone
	tableRequests   = "requests"   // *requestRow
	tableMeta       = "meta"       // *metaRow, one
	tableAutopilot  = "autopilot"  // *catalog.Autopilot, at most one
)

// Indexes of tables.
const (
	byID          = "id"
	byUUID        = "uuid"         // nodes by node ID
	byName        = "name"         // services, checks by service name
	byNodeService = "node_service" // checks by node and service ID
	byStatus      = "status"       // checks that don't pass
	byTime        = "time"         // requests
	byIndex       = "index"        // tombstones
)

// indexRow is the index at which one kind of result last changed.
type indexRow struct {
	Key   string `codec:"K"`
	Value uint64 `codec:"V"`
}

// requestRow remembers the reply to a request, for retries.
type requestRow struct {
	Client  string         `codec:"C"`
	Counter uint64         `codec:"N"`
	Time    int64          `codec:"At"` // log time, Unix nanoseconds
	Err     *catalog.Error `codec:"Err,omitempty"`
}

// metaRow is what the store knows of itself.
type metaRow struct {
	Applied uint64          `codec:"Applied"` // Raft index of the last command
	Clock   int64           `codec:"Clock"`   // latest log time seen, Unix nanoseconds
	Last    uint64          `codec:"Last"`    // largest index shown: base + Applied
	Floor   uint64          `codec:"Floor"`   // index at which the history began; no result shows less
	History catalog.History `codec:"History"`

	Requests   int `codec:"Requests"`   // rows of tableRequests
	Tombstones int `codec:"Tombstones"` // rows of tableTombstones
}

// fold is how names are compared: without letter case, as Consul and DNS do.
func fold(name string) string { return strings.ToLower(name) }

// key joins parts so that no part can run into the next: names hold no NUL.
func key(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = append(append(b, p...), 0)
	}
	return b
}

func nodeKey(node string) []byte                { return key(fold(node)) }
func onNodeKey(node, id string) []byte          { return key(fold(node), id) }
func tombstoneKey(node, sid, cid string) []byte { return key(fold(node), sid, cid) }

func requestKey(client string, counter uint64) []byte {
	return binary.BigEndian.AppendUint64(key(client), counter)
}

// keyIndexer indexes rows by a key made from the row; callers pass the key
// itself, or a prefix of it, as argument. A nil key leaves the row out.
type keyIndexer func(row any) []byte

// FromObject implements memdb.SingleIndexer.
func (f keyIndexer) FromObject(row any) (bool, []byte, error) {
	k := f(row)
	return k != nil, k, nil
}

// FromArgs implements memdb.Indexer.
func (f keyIndexer) FromArgs(args ...any) ([]byte, error) {
	if len(args) == 1 {
		if k, ok := args[0].([]byte); ok {
			return k, nil
		}
	}
	return nil, fmt.Errorf("index lookup with %d arguments: want one key", len(args))
}

// PrefixFromArgs implements memdb.PrefixIndexer.
func (f keyIndexer) PrefixFromArgs(args ...any) ([]byte, error) { return f.FromArgs(args...) }

func unique(name string, f keyIndexer) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, Unique: true, Indexer: f, AllowMissing: name != byID}
}

func many(name string, f keyIndexer) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, Indexer: f, AllowMissing: true}
}

func table(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: make(map[string]*memdb.IndexSchema)}
	for _, i := range indexes {
		t.Indexes[i.Name] = i
	}
	return t
}

func newSchema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: make(map[string]*memdb.TableSchema)}
	for _, t := range []*memdb.TableSchema{
		nodesTable(), servicesTable(), checksTable(),
		table(tableIndexes, unique(byID, func(r any) []byte { return []byte(r.(*indexRow).Key) })),
		tombstonesTable(), requestsTable(),
		table(tableMeta, unique(byID, func(any) []byte { return key("meta") })),
		table(tableAutopilot, unique(byID, func(any) []byte { return key("autopilot") })),
	} {
		s.Tables[t.Name] = t
	}
	return s
}

func nodesTable() *memdb.TableSchema {
	return table(tableNodes,
		unique(byID, func(r any) []byte { return nodeKey(r.(*catalog.Node).Node) }),
		unique(byUUID, func(r any) []byte {
			if id := r.(*catalog.Node).ID; id != "" {
				return key(fold(id))
			}
			return nil
		}))
}

func servicesTable() *memdb.TableSchema {
	return table(tableServices,
		unique(byID, func(r any) []byte { s := r.(*catalog.Service); return onNodeKey(s.Node, s.ID) }),
		many(byName, func(r any) []byte { return nodeKey(r.(*catalog.Service).Service) }))
}

func checksTable() *memdb.TableSchema {
	return table(tableChecks,
		unique(byID, func(r any) []byte { c := r.(*catalog.Check); return onNodeKey(c.Node, c.CheckID) }),
		many(byNodeService, func(r any) []byte { c := r.(*catalog.Check); return onNodeKey(c.Node, c.ServiceID) }),
		many(byStatus, func(r any) []byte {
			if status := r.(*catalog.Check).Status; status != catalog.Passing { // most do: an entry takes more memory than the check
				return key(status)
			}
			return nil
		}),
		many(byName, func(r any) []byte {
			if name := r.(*catalog.Check).ServiceName; name != "" {
				return nodeKey(name)
			}
			return nil
		}))
}

func tombstonesTable() *memdb.TableSchema {
	return table(tableTombstones,
		unique(byID, func(r any) []byte {
			t := r.(*catalog.Tombstone)
			return tombstoneKey(t.Node, t.ServiceID, t.CheckID)
		}),
		many(byIndex, func(r any) []byte {
			return binary.BigEndian.AppendUint64(nil, r.(*catalog.Tombstone).Index)
		}))
}

func requestsTable() *memdb.TableSchema {
	return table(tableRequests,
		unique(byID, func(r any) []byte { q := r.(*requestRow); return requestKey(q.Client, q.Counter) }),
		many(byTime, func(r any) []byte {
			return binary.BigEndian.AppendUint64(nil, uint64(r.(*requestRow).Time))
		}))
}
