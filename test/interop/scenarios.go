package interop

import "crypto/ed25519"

// scenario is one row of the table, or two: it runs with either engine acting.
type scenario struct {
	name string
	run  func(*world)
}

// scenarios are run against every peer.
var scenarios = []scenario{
	{"KeyPackage accepted, Add by value", addByValue},
	{"Welcome, tree in it", welcomeInBand},
	{"Welcome, tree on another way", welcomeOutOfBand},
	{"Welcome, unmerged leaves in both halves of the tree", unmergedLeaves},
	{"exporter and epoch authenticator", exporter},
	{"application messages, reordered and some lost", reorderedMessages},
	{"application messages, late by up to three epochs", lateMessages},
	{"application messages, padded", paddedMessages},
	{"Commit without proposals (path only)", pathOnly},
	{"Commit without proposals, as PrivateMessage", pathOnlyPrivate},
	{"Update by reference", updateByReference},
	{"Add by reference", addByReference},
	{"Add by reference, as PrivateMessage", addByReferencePrivate},
	{"Remove by value", removeByValue},
	{"Remove by value, the tree shrinks", removeLast},
	{"Remove by value, half of the tree is blank", halfBlank},
	{"Remove by reference", removeByReference},
	{"Remove by reference, as PrivateMessage", removeByReferencePrivate},
	{"Remove and Add in one Commit with a path", removeAndAdd},
	{"external PSK in Commit and Welcome", externalPSK},
	{"external PSK by reference", externalPSKByReference},
	{"resumption PSK of an earlier epoch", resumptionPSK},
	{"GroupContextExtensions by value, required_capabilities", requiredCapabilitiesByValue},
	{"GroupContextExtensions by reference, required_capabilities", requiredCapabilitiesByReference},
	{"GroupContextExtensions by value, external_senders", externalSendersByValue},
	{"GroupContextExtensions by reference, external_senders", externalSendersByReference},
	{"ReInit by value", reInitByValue},
	{"ReInit by reference", reInitByReference},
	{"external Commit", externalCommit},
	{"external Commit into epoch 0", externalCommitEpochZero},
	{"external Commit, tree on another way", externalCommitOutOfBand},
	{"external Commit, resync", externalResync},
	{"Add proposed by the newcomer", newMemberProposal},
	{"a long history in a group of up to 17", longHistory},
	{"a long history, one by one, newcomers commit at once", tidyHistory},
}

// AsIs are the scenarios for a peer whose GroupInfo is not RFC 9420's, so that the
// others run with a corrected one.
var asIs = []scenario{
	{"external Commit, external_pub as the peer writes and reads it", externalCommitAsIs},
}

func addByValue(w *world) {
	mine, _ := w.found()
	for _, from := range mine {
		joiners, kps := w.newcomers(w.other, w.acting)
		w.admit(from, joiners, Commit{Adds: kps})
	}
}

func welcomeInBand(w *world) {
	mine, _ := w.found()
	w.commit(mine[0], Commit{}) // so that the tree has parents
	joiners, kps := w.newcomers(w.other)
	w.admit(mine[1], joiners, Commit{Adds: kps, Path: true})
	w.commit(joiners[0], Commit{}) // with keys from the path secret
}

func welcomeOutOfBand(w *world) {
	mine, _ := w.found()
	w.commit(mine[0], Commit{})
	joiners, kps := w.newcomers(w.other)
	w.admit(mine[1], joiners, Commit{Adds: kps, NoTree: true})
	w.commit(joiners[0], Commit{})
}

// unmergedLeaves adds one member to each half of a tree whose parents are in use:
// the root then lists both as unmerged, and the parents below one each.
func unmergedLeaves(w *world) {
	mine, others := w.six()
	w.remove(mine[0], others[0])
	w.commit(mine[2], Commit{})
	joiners, kps := w.newcomers(w.other, w.acting)
	w.admit(mine[1], joiners, Commit{Adds: kps})
	w.commit(others[1], Commit{})
	w.commit(joiners[0], Commit{})
}

func exporter(w *world) {
	mine, others := w.found()
	for _, m := range append(mine, others...) {
		w.commit(m, Commit{})
	}
}

func pathOnly(w *world)        { rotate(w, false) }
func pathOnlyPrivate(w *world) { rotate(w, true) }

func rotate(w *world, private bool) {
	mine, others := w.found()
	for range 2 {
		w.commit(mine[0], Commit{Private: private})
		w.commit(others[1], Commit{})
		w.commit(mine[1], Commit{Private: private})
	}
}

func updateByReference(w *world) {
	mine, others := w.found()
	w.propose(mine[1], Proposal{Update: true})
	w.commit(others[0], Commit{})
	w.propose(mine[0], Proposal{Update: true})
	w.propose(mine[1], Proposal{Update: true})
	w.commit(others[1], Commit{})
	w.propose(mine[0], Proposal{Update: true})
	w.commit(mine[1], Commit{})
	w.commit(mine[0], Commit{}) // with the updated leaf
}

func addByReference(w *world)        { proposeAdds(w, false) }
func addByReferencePrivate(w *world) { proposeAdds(w, true) }

func proposeAdds(w *world, private bool) {
	mine, others := w.found()
	for _, committer := range []*actor{others[0], mine[0]} {
		joiners, kps := w.newcomers(w.other, w.acting)
		for _, kp := range kps {
			w.propose(mine[1], Proposal{Add: kp, Private: private})
		}
		w.admit(committer, joiners, Commit{})
	}
}

// six is found with one more member on each side, so that no half of the tree is
// blank when two of them have gone.
func (w *world) six() (mine, others []*actor) {
	mine, others = w.found()
	joiners, kps := w.newcomers(w.other, w.acting)
	w.admit(mine[0], joiners, Commit{Adds: kps})
	return append(mine, joiners[1]), append(others, joiners[0])
}

// remove lets a member remove another one by value.
func (w *world) remove(by, leaving *actor) {
	at := w.index(leaving)
	w.drop(leaving)
	w.commit(by, Commit{Removes: []uint32{at}})
}

func removeByValue(w *world) {
	mine, others := w.six()
	w.remove(mine[0], others[0])
	w.remove(mine[1], mine[0])
	w.commit(others[1], Commit{})
	w.commit(mine[2], Commit{})
}

// removeLast takes away the fifth and sixth member, so that the tree shrinks.
func removeLast(w *world) {
	mine, others := w.six()
	w.commit(others[1], Commit{})
	w.remove(mine[0], mine[2])
	w.remove(mine[1], others[2])
	w.commit(others[0], Commit{})
	w.commit(mine[0], Commit{})
}

// halfBlank empties the left half of the tree: a Commit of who is left has a path
// that ends below the root.
func halfBlank(w *world) {
	mine, others := w.found()
	w.remove(mine[0], others[0])
	w.remove(mine[1], mine[0])
	w.commit(others[1], Commit{})
	w.commit(mine[1], Commit{})
}

func removeByReference(w *world)        { proposeRemoves(w, false) }
func removeByReferencePrivate(w *world) { proposeRemoves(w, true) }

func proposeRemoves(w *world, private bool) {
	mine, others := w.six()
	for i, committer := range []*actor{others[1], mine[1]} {
		leaving := []*actor{others[0], mine[0]}[i]
		at := w.index(leaving)
		w.propose(mine[1], Proposal{Remove: &at, Private: private})
		w.drop(leaving)
		w.commit(committer, Commit{})
	}
	w.commit(mine[2], Commit{})
	w.commit(others[2], Commit{})
}

// removeAndAdd fills the blank leaf again, and another beyond.
func removeAndAdd(w *world) {
	mine, others := w.found()
	w.commit(others[1], Commit{})
	removed := w.index(others[0])
	joiners, kps := w.newcomers(w.other, w.acting)
	w.drop(others[0])
	w.admit(mine[1], joiners, Commit{Removes: []uint32{removed}, Adds: kps})
	w.commit(joiners[0], Commit{})
	w.commit(mine[0], Commit{})
}

// givePSK makes a pre-shared key known to all.
func (w *world) givePSK(to []*actor, id string) {
	for _, m := range to {
		if w.err == nil {
			w.fail(m, "is given a PSK", m.AddPSK([]byte(id), []byte("secret of "+id)))
		}
	}
}

func externalPSK(w *world) {
	mine, _ := w.found()
	w.givePSK(w.members, "first")
	w.givePSK(w.members, "second")
	w.commit(mine[0], Commit{PSKs: [][]byte{[]byte("first")}})
	joiners, kps := w.newcomers(w.other, w.acting)
	w.givePSK(joiners, "first")
	w.givePSK(joiners, "second")
	w.admit(mine[1], joiners, Commit{Adds: kps, PSKs: [][]byte{[]byte("second"), []byte("first")}, Path: true})
}

func externalPSKByReference(w *world) {
	mine, others := w.found()
	w.givePSK(w.members, "first")
	w.propose(mine[0], Proposal{PSK: []byte("first")})
	w.commit(others[0], Commit{})
	w.propose(mine[0], Proposal{PSK: []byte("first")})
	w.commit(mine[1], Commit{})
}

func resumptionPSK(w *world) {
	mine, others := w.found()
	w.commit(mine[0], Commit{})
	w.commit(others[0], Commit{})
	epoch := uint64(2)
	w.commit(mine[1], Commit{ResumptionPSK: &epoch})
}

// requiredCapabilities asks for nothing but basic credentials: no extension types, no
// proposal types, one credential type (RFC 9420 §11.1).
var requiredCapabilities = Extension{Type: 3, Data: []byte{0, 0, 2, 0, 1}}

// externalSenders names one sender, called "sender" (RFC 9420 §12.1.8.1).
func externalSenders() Extension {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey) //nolint:errcheck // It is one.
	sender := append([]byte{ed25519.PublicKeySize}, key...)
	sender = append(sender, 0, 1, 6)
	sender = append(sender, "sender"...)
	return Extension{Type: 5, Data: append([]byte{byte(len(sender))}, sender...)} //nolint:gosec // 39 of them.
}

func requiredCapabilitiesByValue(w *world)     { extensionsByValue(w, requiredCapabilities) }
func requiredCapabilitiesByReference(w *world) { extensionsByReference(w, requiredCapabilities) }
func externalSendersByValue(w *world)          { extensionsByValue(w, externalSenders()) }
func externalSendersByReference(w *world)      { extensionsByReference(w, externalSenders()) }

func extensionsByValue(w *world, x Extension) {
	mine, others := w.found()
	w.commit(mine[0], Commit{Extensions: []Extension{x}})
	w.commit(others[0], Commit{})
	joiners, kps := w.newcomers(w.other, w.acting)
	w.admit(mine[1], joiners, Commit{Adds: kps})
}

func extensionsByReference(w *world, x Extension) {
	mine, others := w.found()
	w.propose(mine[0], Proposal{Extensions: []Extension{x}})
	w.commit(others[0], Commit{})
	w.commit(mine[1], Commit{})
}

func reInitByValue(w *world) {
	mine, _ := w.found()
	w.commit(mine[0], Commit{ReInit: []byte("the next group")})
}

func reInitByReference(w *world) {
	mine, others := w.found()
	w.propose(mine[0], Proposal{ReInit: []byte("the next group")})
	w.commit(others[0], Commit{})
}
