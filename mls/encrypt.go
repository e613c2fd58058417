package mls

import "fmt"

// Encrypt makes an application message (RFC 9420 §6.3) as an MLSMessage.
// authenticatedData is authenticated and readable by everyone. The result is as
// long as one for a plaintext of paddedSize bytes; longer plaintexts are not padded.
// Save the Group before the message is sent: then no key is used twice, whatever
// happens. A member that has seen a valid proposal must commit before it sends
// application data (RFC 9420 §12.4), so that no removal is put off: see
// ProposalsWaiting. Errors: ErrRemoved, ErrTooLarge, ErrRatchetExhausted.
func (g *Group) Encrypt(plaintext, authenticatedData []byte, paddedSize int) ([]byte, error) {
	if !g.Active() {
		return nil, ErrRemoved
	}
	if len(plaintext) > maxOpaque || len(authenticatedData) > maxOpaque || paddedSize > maxOpaque {
		return nil, fmt.Errorf("%w: application message", ErrTooLarge)
	}
	a := g.newContent(ContentApplication, authenticatedData)
	a.wireFormat = WireFormatPrivateMessage
	a.content.application = plaintext
	g.signContent(a)
	generation, key, err := g.cur.messages.take(g.own, applicationRatchet)
	if err != nil {
		return nil, err
	}
	defer key.clear()
	d := senderData{leaf: g.own, generation: generation, reuseGuard: [4]byte(randomBytes(4))}
	m := sealPrivateMessage(a, d, key, g.cur.secrets.senderData, paddedSize)
	return appendMessage(WireFormatPrivateMessage, m), nil
}

// opened is a PrivateMessage that was decrypted and verified; its key is not
// consumed yet.
type opened struct {
	auth   *authenticatedContent
	key    *pendingKey
	author Member
}

// openPrivate decrypts a message of the current epoch or, for application data, of
// a recent one, and verifies its signature.
func (g *Group) openPrivate(m *PrivateMessage) (*opened, error) {
	context, senderSecret, messages := g.cur.encoded, g.cur.secrets.senderData, g.cur.messages
	if m.Epoch != g.Epoch() {
		p := g.pastEpoch(m.Epoch)
		if p == nil || m.ContentType != ContentApplication {
			return nil, ErrPastEpoch
		}
		context, senderSecret, messages = p.encoded, p.senderData, p.messages
	}
	d, err := m.openSenderData(senderSecret)
	if err != nil {
		return nil, err
	}
	if d.leaf == g.own {
		return nil, ErrOwnMessage
	}
	author, err := g.memberAt(m.Epoch, d.leaf)
	if err != nil {
		return nil, err
	}
	key, err := messages.find(d.leaf, ratchetFor(m.ContentType), d.generation)
	if err != nil {
		return nil, err
	}
	a, err := m.open(d, key.messageKey)
	key.clear()
	if err != nil {
		return nil, err
	}
	if err := a.verify(author.SignatureKey, context); err != nil {
		return nil, err
	}
	return &opened{auth: a, key: key, author: author}, nil
}

func (o *opened) application() *Processed {
	p := processedBy(o.author, o.auth)
	p.Kind, p.Data = Application, o.auth.content.application
	return p
}
