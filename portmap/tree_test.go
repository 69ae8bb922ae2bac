package portmap

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTreeAgainstMap plays random changes on a tree and on a plain map, and
// compares everything a tree can tell; old trees must stay as they were.
func TestTreeAgainstMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr := tree[int, int]{cmp: cmp.Compare[int]}
		model := map[int]int{}
		old, oldKeys := tr, []int(nil)
		for i := range rapid.IntRange(0, 200).Draw(t, "changes") {
			k := rapid.IntRange(0, 60).Draw(t, "key")
			if rapid.Bool().Draw(t, "insert") {
				tr, model[k] = tr.with(k, i), i
			} else {
				tr = tr.without(k)
				delete(model, k)
			}
			if i == 50 {
				old, oldKeys = tr, keysOf(tr)
			}
		}
		var want []int
		for k := range model {
			want = append(want, k)
		}
		slices.Sort(want)
		if got := keysOf(tr); !slices.Equal(got, want) || tr.len() != len(want) {
			t.Fatalf("keys %v, want %v", got, want)
		}
		for i, k := range want {
			if v, ok := tr.get(k); !ok || v != model[k] {
				t.Fatalf("get(%d) = %d, %v", k, v, ok)
			}
			if gk, gv := tr.at(i); gk != k || gv != model[k] || tr.rank(k) != i {
				t.Fatalf("at(%d) = %d, rank %d", i, gk, tr.rank(k))
			}
		}
		from := rapid.IntRange(-1, 61).Draw(t, "from")
		var tail []int
		for k := range tr.from(from) {
			tail = append(tail, k)
		}
		cut, _ := slices.BinarySearch(want, from)
		if !slices.Equal(tail, want[cut:]) || tr.rank(from) != cut {
			t.Fatalf("from(%d) = %v, want %v", from, tail, want[cut:])
		}
		checkBalance(t, tr.root)
		if oldKeys != nil && !slices.Equal(keysOf(old), oldKeys) {
			t.Fatalf("an old tree changed")
		}
	})
}

// TestTreeInPlace: what is put in place makes the same tree as what is not, and nothing but the
// nodes.
func TestTreeInPlace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOf(rapid.IntRange(0, 60)).Draw(t, "keys")
		own, other := tree[int, int]{cmp: cmp.Compare[int]}, tree[int, int]{cmp: cmp.Compare[int]}
		for i, k := range keys {
			own, other = own.put(k, i, true), other.with(k, i)
		}
		if !slices.Equal(keysOf(own), keysOf(other)) || own.len() != other.len() {
			t.Fatalf("keys %v, want %v", keysOf(own), keysOf(other))
		}
		for k, v := range other.all() {
			if got, _ := own.get(k); got != v {
				t.Fatalf("get(%d) = %d, want %d", k, got, v)
			}
		}
		checkBalance(t, own.root)
	})
}

func keysOf(t tree[int, int]) []int {
	var keys []int
	for k := range t.all() {
		keys = append(keys, k)
	}
	return keys
}

func checkBalance(t *rapid.T, n *node[int, int]) {
	if n == nil {
		return
	}
	l, r := n.left.len(), n.right.len()
	if n.size != l+r+1 {
		t.Fatalf("size %d of %d+%d+1", n.size, l, r)
	}
	if l+r > 1 && (l > delta*r || r > delta*l) {
		t.Fatalf("out of balance: %d against %d", l, r)
	}
	checkBalance(t, n.left)
	checkBalance(t, n.right)
}

func TestTreeWalkStops(t *testing.T) {
	t.Parallel()
	tr := tree[int, int]{cmp: cmp.Compare[int]}
	for i := range 100 {
		tr = tr.with(i, i)
	}
	seen := 0
	for k := range tr.from(10) {
		if seen++; k == 20 {
			break
		}
	}
	if seen != 11 {
		t.Fatalf("walked %d entries", seen)
	}
}
