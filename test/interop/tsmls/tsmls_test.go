package tsmls

import (
	"errors"
	"flag"
	"os"
	"testing"

	"quicproquo.dev/test/interop"
	"quicproquo.dev/test/interop/node"
	"quicproquo.dev/test/interop/ours"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

const (
	wrongPath     = "commits GroupContextExtensions without a path; RFC 9420 §12.4 requires one"
	wrongSenders  = "external_senders is taken for one sender; RFC 9420 §12.1.8.1 has a vector of them"
	wrongSecret   = "when the path ends below the root it derives commit_secret as if the root were on it; RFC 9420 §12.4.1 takes the secret after the path's last"
	wrongUnmerged = "wants equal unmerged_leaves in all parents above a leaf; RFC 9420 §12.4.3.1 only wants those between to list the leaf as well"
	wrongKey      = "external_pub is written and read without the length of an HPKEPublicKey, opaque<V> (RFC 9420 §12.4.3.2)"
)

var (
	noSenders  = interop.Fault{Error: "Could not decode external_senders", Why: wrongSenders}
	noPath     = interop.Fault{Error: "invalid commit: no path", Why: wrongPath}
	noUnmerged = interop.Fault{Error: "must list leaf node in its unmerged_leaves", Why: wrongUnmerged}
)

var faults = map[string]interop.Fault{
	"GroupContextExtensions by value, required_capabilities, theirs into ours":     noPath,
	"GroupContextExtensions by reference, required_capabilities, ours into theirs": noPath,
	"GroupContextExtensions by value, external_senders, ours into theirs":          noSenders,
	"GroupContextExtensions by value, external_senders, theirs into ours":          noSenders,
	"GroupContextExtensions by reference, external_senders, ours into theirs":      noSenders,
	"GroupContextExtensions by reference, external_senders, theirs into ours":      noSenders,
	"Welcome, unmerged leaves in both halves of the tree, ours into theirs":        noUnmerged,
	"Welcome, unmerged leaves in both halves of the tree, theirs into ours":        noUnmerged,
	"a long history in a group of up to 17, ours into theirs":                      noUnmerged,
	"a long history in a group of up to 17, theirs into ours":                      noUnmerged,
	"Remove by value, half of the tree is blank, ours into theirs":                 {Error: "Could not verify confirmation tag", Why: wrongSecret},
	"Remove by value, half of the tree is blank, theirs into ours":                 {Error: "confirmation tag does not match", Why: wrongSecret},
	"external Commit, external_pub as the peer writes and reads it, ours into theirs": {
		Error: "the group info has no external_pub", Why: wrongKey,
	},
	"external Commit, external_pub as the peer writes and reads it, theirs into ours": {
		Error: "Invalid public key for the ciphersuite", Why: wrongKey,
	},
}

func TestInterop(t *testing.T) {
	dir, err := Install(t.Context(), os.Stderr)
	if errors.Is(err, node.ErrMissing) {
		t.Skipf("NOT RUN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	engine, err := NewEngine(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := interop.Suite{Us: ours.Engine{}, Them: engine, Faults: faults, AsIs: true}
	s.Run(t, "../README.md", *update)
}
