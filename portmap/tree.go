package portmap

import "iter"

// tree is an immutable ordered map: every change yields a new tree that shares
// almost all nodes with the old one, so that a reader may keep the old one for
// as long as it likes. It is weight-balanced (Adams), because the weights also
// give ranks: the i-th entry and the number of entries below a key cost
// O(log n), which is what listing by index and finding a free port need.
//
// The zero tree is empty; cmp must be the same total order for all trees that
// share nodes.
type tree[K, V any] struct {
	root *node[K, V]
	cmp  func(a, b K) int
}

// ordered are mappings in an order of their own fields: a node has no other key, and a third
// of the octets.
type ordered = tree[*Mapping, struct{}]

type node[K, V any] struct {
	left, right *node[K, V]
	key         K
	value       V
	size        int
}

// Weights of two siblings differ at most by the factor delta; gamma decides
// between a single and a double rotation. (3, 2) is the proven integer pair.
const (
	delta = 3
	gamma = 2
)

func (n *node[K, V]) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

func (t tree[K, V]) len() int { return t.root.len() }

func (t tree[K, V]) get(k K) (v V, ok bool) {
	if n := t.find(k); n != nil {
		return n.value, true
	}
	return v, false
}

func (t tree[K, V]) find(k K) *node[K, V] {
	for n := t.root; n != nil; {
		switch c := t.cmp(k, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// seek returns the first entry that is not before what is looked for, or nil; c compares that
// with a key. So what is looked for needs not be a key, which may be large.
func (t tree[K, V]) seek(c func(K) int) (found *node[K, V]) {
	for n := t.root; n != nil; {
		if c(n.key) > 0 {
			n = n.right
		} else {
			found, n = n, n.left
		}
	}
	return found
}

// at returns the i-th entry in order; i must be in 0..len-1.
func (t tree[K, V]) at(i int) (K, V) {
	n := t.root
	for {
		l := n.left.len()
		switch {
		case i < l:
			n = n.left
		case i > l:
			i -= l + 1
			n = n.right
		default:
			return n.key, n.value
		}
	}
}

// rank returns the number of entries with a key below k.
func (t tree[K, V]) rank(k K) int {
	below := 0
	for n := t.root; n != nil; {
		switch c := t.cmp(k, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			below += n.left.len() + 1
			n = n.right
		default:
			return below + n.left.len()
		}
	}
	return below
}

// first returns the smallest entry.
func (t tree[K, V]) first() (k K, v V, ok bool) {
	if t.root == nil {
		return k, v, false
	}
	k, v = t.at(0)
	return k, v, true
}

// from walks the entries with keys of at least k, in order.
func (t tree[K, V]) from(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		t.walk(t.root, &k, yield)
	}
}

// all walks the entries in order.
func (t tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		t.walk(t.root, nil, yield)
	}
}

func (t tree[K, V]) walk(n *node[K, V], from *K, yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	if from != nil {
		c := t.cmp(*from, n.key)
		if c > 0 {
			return t.walk(n.right, from, yield)
		}
		if c < 0 && !t.walk(n.left, from, yield) {
			return false
		}
	} else if !t.walk(n.left, nil, yield) {
		return false
	}
	return yield(n.key, n.value) && t.walk(n.right, nil, yield)
}

// with returns the tree in which k has the value v.
func (t tree[K, V]) with(k K, v V) tree[K, V] { return t.put(k, v, false) }

// put is with, in place where own is set: nobody else has the nodes then. So a large tree is
// made with one allocation an entry, and those that come together lie together.
func (t tree[K, V]) put(k K, v V, own bool) tree[K, V] {
	t.root = t.insert(t.root, k, v, own)
	return t
}

// without returns the tree that has no k.
func (t tree[K, V]) without(k K) tree[K, V] {
	t.root = t.remove(t.root, k)
	return t
}

func (t tree[K, V]) insert(n *node[K, V], k K, v V, own bool) *node[K, V] {
	if n == nil {
		return &node[K, V]{key: k, value: v, size: 1}
	}
	switch c := t.cmp(k, n.key); {
	case c < 0:
		return balance(n, t.insert(n.left, k, v, own), n.right, own)
	case c > 0:
		return balance(n, n.left, t.insert(n.right, k, v, own), own)
	case own:
		n.key, n.value = k, v
		return n
	}
	return &node[K, V]{left: n.left, right: n.right, key: k, value: v, size: n.size}
}

func (t tree[K, V]) remove(n *node[K, V], k K) *node[K, V] {
	if n == nil {
		return nil
	}
	switch c := t.cmp(k, n.key); {
	case c < 0:
		return balance(n, t.remove(n.left, k), n.right, false)
	case c > 0:
		return balance(n, n.left, t.remove(n.right, k), false)
	}
	if n.left == nil {
		return n.right
	}
	if n.right == nil {
		return n.left
	}
	next, rest := removeFirst(n.right)
	return balance(next, n.left, rest, false)
}

func removeFirst[K, V any](n *node[K, V]) (first, rest *node[K, V]) {
	if n.left == nil {
		return n, n.right
	}
	first, left := removeFirst(n.left)
	return first, balance(n, left, n.right, false)
}

// join returns what n holds over two other subtrees, in n itself where own is set. It is not
// inlined: balance would have it nine times, for each type that a tree is of, which were
// 40 kB. Keys and values pass as the node that has them, not one by one, for the same reason.
//
//go:noinline
func join[K, V any](n, l, r *node[K, V], own bool) *node[K, V] {
	if !own {
		c := *n
		n = &c
	}
	n.left, n.right, n.size = l, r, l.len()+r.len()+1
	return n
}

// balance joins two subtrees of which one may have grown or shrunk by one.
func balance[K, V any](n, l, r *node[K, V], own bool) *node[K, V] {
	switch {
	case l.len()+r.len() < 2:
		return join(n, l, r, own)
	case r.len() > delta*l.len():
		if r.left.len() < gamma*r.right.len() {
			return join(r, join(n, l, r.left, own), r.right, own)
		}
		m := r.left
		return join(m, join(n, l, m.left, own), join(r, m.right, r.right, own), own)
	case l.len() > delta*r.len():
		if l.right.len() < gamma*l.left.len() {
			return join(l, l.left, join(n, l.right, r, own), own)
		}
		m := l.right
		return join(m, join(l, l.left, m.left, own), join(n, m.right, r, own), own)
	}
	return join(n, l, r, own)
}
