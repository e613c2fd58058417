package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// world is one scenario's group, with everyone who is or was in it. Its methods do
// nothing after the first error, which err keeps.
type world struct {
	// acting is the engine whose messages the scenario is about, other the one
	// that must understand them.
	acting, other Engine
	members       []*actor
	made          map[Engine]int
	agreements    int
	err           error
}

// actor is a member with its name and its engine.
type actor struct {
	Member
	name   string
	engine Engine
}

func (w *world) fail(who *actor, doing string, err error) bool {
	if err == nil {
		return w.err != nil
	}
	if w.err == nil {
		w.err = fmt.Errorf("%s %s: %w", who.name, doing, err)
	}
	return true
}

// newActor makes a client of an engine, with a name that tells which.
func (w *world) newActor(e Engine) *actor {
	a := &actor{engine: e, name: fmt.Sprintf("%s-%d", e.Name(), w.made[e])}
	if w.err != nil {
		return a
	}
	w.made[e]++
	m, err := e.NewMember(a.name)
	a.Member = m
	w.fail(a, "is made", err)
	return a
}

func (w *world) keyPackage(a *actor) []byte {
	if w.err != nil {
		return nil
	}
	kp, err := a.KeyPackage()
	w.fail(a, "makes a KeyPackage", err)
	return kp
}

// newcomers makes clients, and a KeyPackage of each.
func (w *world) newcomers(engines ...Engine) ([]*actor, [][]byte) {
	actors, kps := make([]*actor, len(engines)), make([][]byte, len(engines))
	for i, e := range engines {
		actors[i] = w.newActor(e)
		kps[i] = w.keyPackage(actors[i])
	}
	return actors, kps
}

// create starts a group with one member.
func (w *world) create(a *actor) {
	w.keyPackage(a)
	if w.err == nil {
		w.fail(a, "creates a group", a.Create([]byte("group of "+a.name)))
		w.members = []*actor{a}
	}
}

// found makes the group that most scenarios begin with: the acting engine creates
// it, and adds one more of its own and two of the other engine by one Commit.
func (w *world) found() (mine, others []*actor) {
	creator := w.newActor(w.acting)
	w.create(creator)
	joiners, kps := w.newcomers(w.other, w.acting, w.other)
	w.admit(creator, joiners, Commit{Adds: kps})
	return []*actor{creator, joiners[1]}, []*actor{joiners[0], joiners[2]}
}

// commit lets a member commit and everyone else process it.
func (w *world) commit(from *actor, c Commit) { w.admit(from, nil, c) }

// admit is commit, after which newcomers join by the Welcome.
func (w *world) admit(from *actor, newcomers []*actor, c Commit) {
	if w.err != nil {
		return
	}
	out, err := from.Commit(c)
	if w.fail(from, "commits", err) {
		return
	}
	w.deliver(from, out.Commit)
	var tree []byte
	if c.NoTree {
		tree, err = from.Tree()
		w.fail(from, "tells the tree", err)
	}
	for _, n := range newcomers {
		if w.err == nil {
			w.fail(n, "joins by the Welcome of "+from.name, n.Join(out.Welcome, tree))
			w.members = append(w.members, n)
		}
	}
	w.agree()
}

// deliver lets everyone but the sender process a handshake message.
func (w *world) deliver(from *actor, message []byte) {
	for _, m := range w.members {
		if m != from {
			w.take(m, from, message)
		}
	}
}

func (w *world) take(to, from *actor, message []byte) []byte {
	if w.err != nil {
		return nil
	}
	text, err := to.Process(message)
	w.fail(to, "processes a message of "+from.name, err)
	return text
}

// propose lets a member propose and everyone else take it in.
func (w *world) propose(from *actor, p Proposal) {
	if w.err != nil {
		return
	}
	message, err := from.Propose(p)
	if !w.fail(from, "proposes", err) {
		w.deliver(from, message)
	}
}

func (w *world) send(from *actor, text string, padding int) []byte {
	if w.err != nil {
		return nil
	}
	message, err := from.Encrypt([]byte(text), padding)
	w.fail(from, "encrypts", err)
	return message
}

// receive decrypts a message and compares its text.
func (w *world) receive(to, from *actor, message []byte, want string) {
	if got := w.take(to, from, message); w.err == nil && string(got) != want {
		w.fail(to, "decrypts", fmt.Errorf("got %q, want %q", got, want))
	}
}

// index is the leaf of a member, as another one sees it.
func (w *world) index(of *actor) uint32 {
	if w.err != nil {
		return 0
	}
	s, err := w.members[0].State()
	if w.fail(w.members[0], "tells its state", err) {
		return 0
	}
	at := slices.IndexFunc(s.Members, func(l Leaf) bool { return l.Identity == of.name })
	if at < 0 {
		w.fail(of, "is looked up", errors.New("no such member"))
		return 0
	}
	return s.Members[at].Index
}

// drop takes a member out of the group's list before the Commit that removes it.
func (w *world) drop(a *actor) {
	w.members = slices.DeleteFunc(w.members, func(m *actor) bool { return m == a })
}

// agree checks that all members are in the same state, and that the list of members
// is the scenario's.
func (w *world) agree() {
	if w.err != nil {
		return
	}
	var first State
	for i, m := range w.members {
		s, err := m.State()
		if w.fail(m, "tells its state", err) {
			return
		}
		if i == 0 {
			first = s
		}
		if w.fail(m, "and "+w.members[0].name, first.differs(s)) {
			return
		}
	}
	w.fail(w.members[0], "lists members", w.sameNames(first.Members))
	w.agreements++
}

func (w *world) sameNames(leaves []Leaf) error {
	var got, want []string
	for _, l := range leaves {
		got = append(got, l.Identity)
	}
	for _, m := range w.members {
		want = append(want, m.name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func (s State) differs(o State) error {
	switch {
	case s.Epoch != o.Epoch:
		return fmt.Errorf("disagree on the epoch: %d, %d", o.Epoch, s.Epoch)
	case s.Active != o.Active:
		return fmt.Errorf("disagree on whether the group is active: %t, %t", o.Active, s.Active)
	case !bytes.Equal(s.Authenticator, o.Authenticator):
		return fmt.Errorf("disagree on the epoch authenticator of epoch %d", s.Epoch)
	case s.Active && (!bytes.Equal(s.Exported, o.Exported) || len(s.Exported) != ExportLength):
		return fmt.Errorf("disagree on the exported secret of epoch %d", s.Epoch)
	case !slices.Equal(s.Members, o.Members):
		return fmt.Errorf("disagree on the members: %v, %v", o.Members, s.Members)
	}
	return nil
}
