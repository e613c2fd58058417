package mls

import "testing"

func TestVectorsTreeMath(t *testing.T) {
	t.Parallel()
	type vector struct {
		Leaves                       int `json:"n_leaves"`
		Nodes                        int `json:"n_nodes"`
		Root                         nodeIndex
		Left, Right, Parent, Sibling []*nodeIndex
	}
	runVectors(t, "tree-math", 10, func(t *testing.T, v vector) {
		root := rootOf(v.Leaves)
		if root != v.Root || 2*v.Leaves-1 != v.Nodes {
			t.Errorf("root %d, want %d", root, v.Root)
		}
		check := func(what string, x nodeIndex, want *nodeIndex, defined bool, f func(nodeIndex) nodeIndex) {
			if (want != nil) != defined {
				t.Errorf("%s of %d: defined %v", what, x, defined)
			} else if defined && f(x) != *want {
				t.Errorf("%s of %d: got %d, want %d", what, x, f(x), *want)
			}
		}
		for x := range nodeIndex(v.Nodes) {
			check("left", x, v.Left[x], !x.isLeaf(), nodeIndex.left)
			check("right", x, v.Right[x], !x.isLeaf(), nodeIndex.right)
			check("parent", x, v.Parent[x], x != root, nodeIndex.parent)
			check("sibling", x, v.Sibling[x], x != root, nodeIndex.sibling)
		}
	})
}

func TestSpan(t *testing.T) {
	t.Parallel()
	tests := []struct {
		x          nodeIndex
		first, end LeafIndex
	}{{0, 0, 1}, {2, 1, 2}, {1, 0, 2}, {3, 0, 4}, {5, 2, 4}, {7, 0, 8}, {11, 4, 8}, {13, 6, 8}}
	for _, tt := range tests {
		if first, end := tt.x.span(); first != tt.first || end != tt.end {
			t.Errorf("span of %d: %d to %d, want %d to %d", tt.x, first, end, tt.first, tt.end)
		}
	}
}
