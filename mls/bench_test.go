package mls

import (
	"fmt"
	"testing"
)

var benchSizes = []int{2, 10, 100, 1000}

// benchGroup returns two members of a group of n; the others exist in the tree only.
// The first Commit has a path, and the second member made one too, as in a group
// that lives.
func benchGroup(b *testing.B, n int) (creator, member *peer, welcome []byte) {
	b.Helper()
	peers := newPeers(b, n)
	creator, member = peers[0], peers[1]
	creator.create(b)
	c := creator.mustCommit(b, CommitOptions{Adds: keyPackagesOf(peers[1:]), ForcePath: true})
	creator.mustMerge(b, c)
	member.join(b, c.Welcome)
	return creator, member, c.Welcome
}

func forSizes(b *testing.B, f func(*testing.B, int)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) { b.ReportAllocs(); f(b, n) })
	}
}

func BenchmarkAddCommit(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		creator, _, _ := benchGroup(b, n)
		add := keyPackagesOf([]*peer{newPeer(b, "new")})
		for b.Loop() {
			creator.mustCommit(b, CommitOptions{Adds: add})
		}
	})
}

func BenchmarkAddCommitWithPath(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		creator, _, _ := benchGroup(b, n)
		add := keyPackagesOf([]*peer{newPeer(b, "new")})
		for b.Loop() {
			creator.mustCommit(b, CommitOptions{Adds: add, ForcePath: true})
		}
	})
}

func BenchmarkProcessCommit(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		creator, member, _ := benchGroup(b, n)
		c := mustParse(b, creator.mustCommit(b, CommitOptions{Adds: keyPackagesOf([]*peer{newPeer(b, "new")}), ForcePath: true}).Commit)
		state := marshal(b, member.Group)
		for b.Loop() {
			b.StopTimer()
			g, err := UnmarshalGroup(state, member.signer, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := g.Process(c, testNow); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		_, member, welcome := benchGroup(b, n)
		for b.Loop() {
			m, err := ParseMessage(welcome)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := JoinGroup(m.Welcome, member.bundle, member.signer, JoinOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncrypt1K(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		creator, _, _ := benchGroup(b, n)
		text := make([]byte, 1024)
		for b.Loop() {
			if _, err := creator.Encrypt(text, nil, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecrypt1K(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		creator, member, _ := benchGroup(b, n)
		text := make([]byte, 1024)
		for b.Loop() {
			b.StopTimer()
			c, err := creator.Encrypt(text, nil, 0)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			m, err := ParseMessage(c)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := member.Process(m, testNow); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSaveAndLoad(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		_, member, _ := benchGroup(b, n)
		b.Run("save", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(int64(len(marshal(b, member.Group))))
			}
		})
		state := marshal(b, member.Group)
		b.Run("load", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := UnmarshalGroup(state, member.signer, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
