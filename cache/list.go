package cache

// list is a ring of nodes, the newest first. Its links lie in the nodes, so that an
// entry costs no more for having a place in it.
type list struct{ root node }

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

// oldest is the last node, nil if there is none.
func (l *list) oldest() *node {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}

func (l *list) push(n *node) {
	n.prev, n.next = &l.root, l.root.next
	n.prev.next, n.next.prev = n, n
}

func (l *list) remove(n *node) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}
