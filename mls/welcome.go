package mls

import "fmt"

// Welcome brings new members into a group (RFC 9420 §12.4.3.1).
type Welcome struct {
	CipherSuite        CipherSuite
	secrets            []encryptedGroupSecrets
	encryptedGroupInfo []byte
}

type encryptedGroupSecrets struct {
	newMember KeyPackageRef
	secrets   hpkeCiphertext
}

// KeyPackageRefs returns the KeyPackages that the Welcome is for, in its order.
func (w *Welcome) KeyPackageRefs() []KeyPackageRef {
	refs := make([]KeyPackageRef, len(w.secrets))
	for i, s := range w.secrets {
		refs[i] = s.newMember
	}
	return refs
}

// Includes reports whether the Welcome is for the KeyPackage named ref.
func (w *Welcome) Includes(ref KeyPackageRef) bool { return w.find(ref) != nil }

func (w *Welcome) find(ref KeyPackageRef) *encryptedGroupSecrets {
	for i := range w.secrets {
		if w.secrets[i].newMember == ref {
			return &w.secrets[i]
		}
	}
	return nil
}

func (w *Welcome) append(b []byte) []byte {
	b = appendUint16(b, uint16(w.CipherSuite))
	b = appendList(b, w.secrets)
	return appendOpaque(b, w.encryptedGroupInfo)
}

func decodeWelcome(r *reader) *Welcome {
	return &Welcome{
		CipherSuite:        CipherSuite(r.uint16()),
		secrets:            list(r, decodeEncryptedGroupSecrets),
		encryptedGroupInfo: r.opaque(),
	}
}

func (s encryptedGroupSecrets) append(b []byte) []byte {
	return s.secrets.append(appendOpaque(b, s.newMember[:]))
}

func decodeEncryptedGroupSecrets(r *reader) (s encryptedGroupSecrets) {
	ref := r.opaque()
	if len(ref) != hashSize {
		r.fail("key package reference")
		return s
	}
	s.newMember = KeyPackageRef(ref)
	s.secrets = decodeHPKECiphertext(r)
	return s
}

// groupSecrets is GroupSecrets (RFC 9420 §12.4.3.1). pathSecret is nil when the
// Commit had no path.
type groupSecrets struct {
	joinerSecret []byte
	pathSecret   []byte
	psks         []*PreSharedKeyID
}

func (s *groupSecrets) append(b []byte) []byte {
	b = appendOpaque(b, s.joinerSecret)
	b = appendOptional(b, s.pathSecret != nil)
	if s.pathSecret != nil {
		b = appendOpaque(b, s.pathSecret)
	}
	return appendList(b, s.psks)
}

func decodeGroupSecrets(r *reader) *groupSecrets {
	s := &groupSecrets{joinerSecret: r.opaque()}
	if r.optional() {
		if s.pathSecret = r.opaque(); len(s.pathSecret) != hashSize {
			r.fail("path secret")
		}
	}
	s.psks = list(r, decodePreSharedKeyID)
	return s
}

func (s *groupSecrets) clear() {
	clear(s.joinerSecret)
	clear(s.pathSecret)
}

// welcomeKeys derives the AEAD key and nonce of the GroupInfo (RFC 9420 §12.4.3.1).
func welcomeKeys(welcomeSecret []byte) (key, nonce []byte) {
	return expandWithLabel(welcomeSecret, "key", nil, keySize), expandWithLabel(welcomeSecret, "nonce", nil, nonceSize)
}

// openSecrets decrypts the part of the Welcome that is for one KeyPackage.
func (w *Welcome) openSecrets(ref KeyPackageRef, initPrivate []byte) (*groupSecrets, error) {
	if w.CipherSuite != SuiteX25519AES128GCMSHA256Ed25519 {
		return nil, fmt.Errorf("welcome: %w: 0x%04x", ErrUnsupportedSuite, uint16(w.CipherSuite))
	}
	entry := w.find(ref)
	if entry == nil {
		return nil, ErrNotAddressed
	}
	pt, err := decryptWithLabel(initPrivate, "Welcome", w.encryptedGroupInfo, entry.secrets)
	if err != nil {
		return nil, fmt.Errorf("welcome: group secrets: %w", err)
	}
	var s *groupSecrets
	if err := decode(pt, "group secrets", func(r *reader) { s = decodeGroupSecrets(r) }); err != nil {
		return nil, err
	}
	return s, nil
}

// openGroupInfo decrypts the GroupInfo.
func (w *Welcome) openGroupInfo(welcomeSecret []byte) (*GroupInfo, error) {
	key, nonce := welcomeKeys(welcomeSecret)
	pt, err := aeadOpen(key, nonce, w.encryptedGroupInfo, nil)
	if err != nil {
		return nil, fmt.Errorf("welcome: group info: %w", err)
	}
	var gi *GroupInfo
	if err := decode(pt, "group info", func(r *reader) { gi = decodeGroupInfo(r) }); err != nil {
		return nil, err
	}
	return gi, nil
}
