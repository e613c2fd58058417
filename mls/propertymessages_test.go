package mls

import (
	"errors"
	"fmt"
	"slices"
)

// lateMessage is an application message, and those who have not received it.
type lateMessage struct {
	message []byte
	parsed  *Message
	text    string
	epoch   uint64
	from    *player
	data    senderData
	to      []*player
	age     int
}

// chat sends a few messages, each of which waits for a random time per receiver.
func (h *history) chat() {
	for range 1 + h.rng.IntN(5) {
		h.say(h.any())
	}
	h.deliverMessages()
}

func (h *history) say(from *player) {
	h.t.Helper()
	text := fmt.Sprintf("%s in %d", from.name, from.Epoch())
	b, err := from.Encrypt([]byte(text), []byte("ad"), 64)
	if err != nil {
		h.t.Fatal(err)
	}
	m := mustParse(h.t, b)
	d, err := m.PrivateMessage.openSenderData(from.cur.secrets.senderData)
	if err != nil {
		h.t.Fatal(err)
	}
	h.counts["messages"]++
	h.messages = append(h.messages, &lateMessage{
		message: b, parsed: m, text: text, epoch: from.Epoch(), from: from, data: d, to: slices.Clone(h.members),
	})
}

// deliverMessages delivers in any order. What is still undelivered after a while is lost.
func (h *history) deliverMessages() {
	h.t.Helper()
	for _, i := range h.rng.Perm(len(h.messages)) {
		m := h.messages[i]
		m.age++
		m.to = slices.DeleteFunc(m.to, func(p *player) bool {
			switch {
			case p.Group == nil || h.rng.IntN(3) == 0:
				return m.age > 6
			case h.rng.IntN(10) == 0:
				h.counts["messages lost"]++
				return true
			}
			return h.receive(p, m)
		})
	}
}

// receive delivers m to p, and reports whether it is dealt with.
func (h *history) receive(p *player, m *lateMessage) bool {
	h.t.Helper()
	switch {
	case m.epoch > p.Epoch():
		h.wantRefused(p, m.parsed, ErrFutureEpoch)
		h.counts["messages early"]++
		return p.gone != 0
	case m.epoch < p.since || m.epoch+maxPastEpochs < p.Epoch():
		h.wantRefused(p, m.parsed, ErrPastEpoch)
		return true
	case p == m.from:
		h.wantRefused(p, m.parsed, ErrOwnMessage)
		return true
	}
	got, err := p.Process(m.parsed, testNow)
	if err != nil {
		h.t.Fatalf("%s in %d, message of %d: %v", p.name, p.Epoch(), m.epoch, err)
	}
	if string(got.Data) != m.text || string(got.AuthenticatedData) != "ad" || string(got.SenderCredential.Identity) != m.from.name {
		h.t.Fatalf("%s got %q from %q, want %q", p.name, got.Data, got.SenderCredential.Identity, m.text)
	}
	if h.rng.IntN(8) == 0 {
		h.reload(p)
	}
	h.wantRefused(p, m.parsed, ErrReplay)
	h.counts["messages read"]++
	return true
}

// provisional returns the context that a Commit's path is encrypted under.
func (h *history) provisional(m *PublicMessage) ([]byte, *UpdatePath) {
	h.t.Helper()
	f := h.follower
	entries, err := resolve(f.received, m.Commit(), m.Sender())
	if err != nil {
		h.t.Fatal(err)
	}
	tr, err := stepPublic(proposalChecker{state: &f.state, at: testNow, validator: f.validator}, entries, &m.auth)
	if err != nil {
		h.t.Fatal(err)
	}
	return encode(&tr.context), m.Commit().Path
}

// attackPath tries every private key that former members hold on every ciphertext of
// a path: none may open. Members that are to read the path show that one would.
func (h *history) attackPath(from *player, path *UpdatePath, context []byte) {
	h.t.Helper()
	for _, n := range h.rng.Perm(len(h.former))[:min(4, len(h.former))] {
		if p := h.former[n]; p.Group != nil && opensPath(p.Group, path, context) {
			h.t.Fatalf("%s left after epoch %d and reads the path of %d", p.name, p.gone, h.follower.Epoch())
		}
		h.counts["paths attacked"]++
	}
	for _, p := range h.online()[:min(1, len(h.online()))] {
		current := p.Group != nil && p.Epoch()+1 == h.follower.Epoch()
		if p != from && current && !opensPath(p.Group, path, context) {
			h.t.Fatalf("%s cannot read the path", p.name)
		}
	}
}

// opensPath reports whether a private key in the state opens a path secret.
func opensPath(g *Group, path *UpdatePath, context []byte) bool {
	keys := [][]byte{g.cur.keys.leaf}
	for _, k := range g.cur.keys.parents {
		keys = append(keys, k)
	}
	for _, k := range g.cur.ownUpdates {
		keys = append(keys, k)
	}
	for _, n := range path.nodes {
		for _, c := range n.secrets {
			for _, k := range keys {
				if _, err := decryptWithLabel(k, "UpdatePathNode", context, c); err == nil {
					return true
				}
			}
		}
	}
	return false
}

// attackMessages lets every former member try every message and every Commit that
// followed its removal, by its engine and with the bare keys of its state.
func (h *history) attackMessages() {
	h.t.Helper()
	for _, p := range h.former {
		if p.Group == nil { // removed before it joined
			continue
		}
		before := marshal(h.t, p.Group)
		for _, m := range h.messages {
			if m.epoch <= p.gone {
				continue
			}
			h.counts["messages attacked"]++
			if _, err := p.Process(m.parsed, testNow); !errors.Is(err, ErrFutureEpoch) || opensMessage(p.Group, m) {
				h.t.Fatalf("%s left after epoch %d and reads a message of %d: %v", p.name, p.gone, m.epoch, err)
			}
		}
		for _, e := range h.log {
			if e.parsed.PublicMessage.Epoch() > p.gone {
				h.wantRefused(p, e.parsed, ErrFutureEpoch)
			}
		}
		wantBytes2(h.t, p.name, marshal(h.t, p.Group), before)
	}
	last := h.messages[len(h.messages)-1]
	for _, p := range h.members {
		if p != last.from && len(last.to) > 0 && slices.Contains(last.to, p) && !opensMessage(p.Group, last) {
			h.t.Fatalf("%s cannot read the last message", p.name)
		}
	}
}

// opensMessage reports whether a secret in the state opens m, or the data on its sender.
func opensMessage(g *Group, m *lateMessage) bool {
	type epochKeys struct {
		senderData []byte
		messages   *secretTree
	}
	all := []epochKeys{{g.cur.secrets.senderData, g.cur.messages}}
	for _, p := range g.past {
		all = append(all, epochKeys{p.senderData, p.messages})
	}
	for _, k := range all {
		if _, err := m.parsed.PrivateMessage.openSenderData(k.senderData); err == nil {
			return true
		}
		key, err := k.messages.find(m.data.leaf, applicationRatchet, m.data.generation)
		if err != nil {
			continue
		}
		if _, err := m.parsed.PrivateMessage.open(m.data, key.messageKey); err == nil {
			return true
		}
	}
	return false
}
