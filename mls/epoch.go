package mls

import "bytes"

// maxPastEpochs is how many ended epochs keep their message keys, so that messages
// sent just before a Commit can still be read.
const maxPastEpochs = 4

// epoch is a member's state of the current epoch. The public state, secrets and
// path keys do not change while it lasts; the secret tree and the proposals do.
type epoch struct {
	publicState
	secrets  epochSecrets
	keys     pathKeys
	messages *secretTree

	received   []proposalEntry
	ownUpdates map[string][]byte // leaf private keys of own Updates, by public key
}

// entrance is what it takes to enter an epoch.
type entrance struct {
	joiner []byte
	psk    []byte
	keys   pathKeys
}

// newEpoch runs the key schedule for a context and tree. The confirmation tag that
// it computes is the caller's to compare.
func newEpoch(c GroupContext, t *tree, in entrance) (*epoch, []byte) {
	welcome, member := welcomeAndMember(in.joiner, in.psk)
	defer clear(member)
	secret := epochSecret(member, encode(&c))
	defer clear(secret)
	return newEpochFromSecret(c, t, secret, in.keys), welcome
}

func newEpochFromSecret(c GroupContext, t *tree, epochSecret []byte, keys pathKeys) *epoch {
	secrets, encryption := deriveEpochSecrets(epochSecret)
	tag := computeMAC(secrets.confirmation, c.ConfirmedTranscriptHash)
	return &epoch{
		publicState: newPublicState(c, t, tag),
		secrets:     secrets,
		keys:        keys,
		messages:    newSecretTree(encryption, len(t.leaves)),
	}
}

// pastEpoch is what is left of an epoch after its Commit: enough to read late
// application messages, and the resumption PSK. Members are kept as differences to
// the following epoch, since most Commits change few of them.
type pastEpoch struct {
	number     uint64
	encoded    []byte // GroupContext
	senderData []byte
	resumption []byte
	messages   *secretTree
	replaced   map[LeafIndex]*Member // nil: blank then
}

// retire turns an epoch into a past one and erases everything else in it.
func (e *epoch) retire(own LeafIndex, next *epoch) *pastEpoch {
	p := &pastEpoch{
		number:     e.context.Epoch,
		encoded:    e.encoded,
		senderData: e.secrets.senderData,
		resumption: e.secrets.resumption,
		messages:   e.messages,
		replaced:   replacedMembers(e.tree, next.tree),
	}
	p.messages.retire(own)
	e.secrets.clear()
	e.keys.clearExcept(next.keys)
	for _, k := range e.ownUpdates {
		if !sameSlice(k, next.keys.leaf) {
			clear(k)
		}
	}
	return p
}

func (p *pastEpoch) clear() {
	clear(p.senderData)
	clear(p.resumption)
	p.messages.clear()
}

// replacedMembers records whoever was a member before and is another one, or none, after.
func replacedMembers(before, after *tree) map[LeafIndex]*Member {
	out := map[LeafIndex]*Member{}
	for n := range max(len(before.leaves), len(after.leaves)) {
		i := LeafIndex(n)
		was, is := before.leaf(i), after.leaf(i)
		switch {
		case was == is:
		case was == nil:
			out[i] = nil
		case is == nil || !was.Credential.Equal(is.Credential) || !bytes.Equal(was.SignatureKey, is.SignatureKey):
			m := was.member(i)
			out[i] = &m
		}
	}
	return out
}

// clearExcept erases the private keys that next no longer holds.
func (k pathKeys) clearExcept(next pathKeys) {
	if !sameSlice(k.leaf, next.leaf) {
		clear(k.leaf)
	}
	for x, key := range k.parents {
		if !sameSlice(key, next.parents[x]) {
			clear(key)
		}
	}
}

func sameSlice(a, b []byte) bool {
	return len(a) > 0 && len(b) > 0 && &a[0] == &b[0]
}
