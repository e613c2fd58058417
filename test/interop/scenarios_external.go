package interop

import (
	"fmt"
	"math/rand/v2"
)

// groupInfo lets a member describe the group.
func (w *world) groupInfo(of *actor, o GroupInfoOptions) []byte {
	if w.err != nil {
		return nil
	}
	gi, err := of.GroupInfo(o)
	w.fail(of, "makes a GroupInfo", err)
	return gi
}

// joinExternal lets a client join by an external Commit that everyone processes.
func (w *world) joinExternal(joiner *actor, groupInfo []byte, o ExternalOptions) {
	if w.err != nil {
		return
	}
	commit, err := joiner.JoinExternal(groupInfo, o)
	if w.fail(joiner, "joins by an external Commit", err) {
		return
	}
	w.deliver(joiner, commit)
	w.members = append(w.members, joiner)
	w.agree()
}

// externalCommit lets clients of the acting engine join, by a GroupInfo of the other
// engine and by one of their own.
func externalCommit(w *world) {
	mine, others := w.found()
	for _, of := range []*actor{others[0], mine[0]} {
		joiner := w.newActor(w.acting)
		w.joinExternal(joiner, w.groupInfo(of, GroupInfoOptions{}), ExternalOptions{})
		w.commit(joiner, Commit{})
		w.commit(others[1], Commit{})
	}
}

func externalCommitAsIs(w *world) {
	_, others := w.found()
	gi := w.groupInfo(others[0], GroupInfoOptions{AsIs: true})
	w.joinExternal(w.newActor(w.acting), gi, ExternalOptions{AsIs: true})
}

func externalCommitEpochZero(w *world) {
	creator := w.newActor(w.other)
	w.create(creator)
	joiner := w.newActor(w.acting)
	w.joinExternal(joiner, w.groupInfo(creator, GroupInfoOptions{}), ExternalOptions{})
	third, kps := w.newcomers(w.other)
	w.admit(joiner, third, Commit{Adds: kps})
}

func externalCommitOutOfBand(w *world) {
	_, others := w.found()
	gi := w.groupInfo(others[0], GroupInfoOptions{NoTree: true})
	if w.err != nil {
		return
	}
	tree, err := others[0].Tree()
	w.fail(others[0], "tells the tree", err)
	w.joinExternal(w.newActor(w.acting), gi, ExternalOptions{Tree: tree})
}

// externalResync lets a member come back by an external Commit that removes its
// earlier leaf.
func externalResync(w *world) {
	mine, others := w.found()
	w.commit(others[1], Commit{})
	at := w.index(mine[1])
	gi := w.groupInfo(others[0], GroupInfoOptions{})
	w.drop(mine[1])
	w.joinExternal(mine[1], gi, ExternalOptions{Resync: &at})
	w.commit(mine[1], Commit{})
	w.commit(others[0], Commit{})
}

// newMemberProposal lets a client of the acting engine propose itself.
func newMemberProposal(w *world) {
	mine, others := w.found()
	for _, committer := range []*actor{others[0], mine[0]} {
		joiner, _ := w.newcomers(w.acting)
		gi := w.groupInfo(committer, GroupInfoOptions{})
		if w.err != nil {
			return
		}
		proposal, err := joiner[0].ProposeJoin(gi)
		if w.fail(joiner[0], "proposes itself", err) {
			return
		}
		w.deliver(joiner[0], proposal)
		w.admit(committer, joiner, Commit{})
	}
}

func longHistory(w *world) { history(w, 3) }

// tidyHistory leaves no leaf unmerged for longer than one Commit.
func tidyHistory(w *world) { history(w, 1) }

// history is a fixed random sequence of Commits that add up to most members each.
// The acting engine makes three of four, and the other one the rest.
func history(w *world, most int) {
	w.found()
	r := rand.New(rand.NewPCG(9420, 1)) //nolint:gosec // The same sequence each time.
	for step := range 24 {
		from := w.anyOf(r, w.acting)
		if step%4 == 3 {
			from = w.anyOf(r, w.other)
		}
		if from == nil || w.err != nil {
			return
		}
		w.randomCommit(r, from, most)
		text := fmt.Sprintf("step %d", step)
		message := w.send(from, text, 0)
		for _, m := range w.members {
			if m != from {
				w.receive(m, from, message, text)
			}
		}
	}
}

// anyOf picks a member of an engine.
func (w *world) anyOf(r *rand.Rand, e Engine) *actor {
	var found []*actor
	for _, m := range w.members {
		if m.engine == e {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[r.IntN(len(found))]
}

func (w *world) randomCommit(r *rand.Rand, from *actor, most int) {
	victim := w.members[r.IntN(len(w.members))]
	switch pick := r.IntN(10); {
	case pick < 5 && len(w.members) < 15:
		first := r.IntN(2)
		joiners, kps := w.newcomers([]Engine{w.other, w.acting, w.other, w.acting}[first : first+1+r.IntN(most)]...)
		w.admit(from, joiners, Commit{Adds: kps})
		if most == 1 {
			w.commit(joiners[0], Commit{})
		}
	case pick < 8 && victim != from && len(w.members) > 6:
		w.remove(from, victim)
	default:
		w.commit(from, Commit{})
	}
}
