package feed_test

import (
	"testing"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
)

func subscriptions(cfg *feed.ServerConfig) { cfg.WholeBelow = -1 }

func TestHostIsToldTheWholeOfASmallCatalogAndItsChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		c.do(register("n2", "web", "w1", catalog.Passing))
		c.do(register("n2", "", "", catalog.Critical))
		r.equals(c)
		c.do(&catalog.Deregister{Node: "n1"})
		r.equals(c)
		if !r.snapshot.Whole || r.snapshot.resets != 1 {
			t.Errorf("whole %v after %d resets: want true, 1", r.snapshot.Whole, r.snapshot.resets)
		}
	})
}

func TestHostIsToldTheNamesItSubscribesTo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		c.do(register("n1", "db", "d1", catalog.Passing))
		n.start("s1", c.store, subscriptions)
		r := n.receiver(host, "web")
		r.equals(c)
		r.subscribe("db")
		c.do(register("n2", "db", "d1", catalog.Passing))
		r.equals(c)
		r.subscribe("nothing")
		r.equals(c)
		r.unsubscribe("web")
		c.do(register("n2", "web", "w1", catalog.Warning))
		r.equals(c)
	})
}
