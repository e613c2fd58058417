package mls

import "fmt"

// PSKType says where a pre-shared key comes from (RFC 9420 §8.4).
type PSKType uint8

// The kinds of pre-shared key.
const (
	PSKExternal   PSKType = 1
	PSKResumption PSKType = 2
)

// ResumptionUsage says what a resumption PSK is used for (RFC 9420 §8.4).
type ResumptionUsage uint8

// The usages of a resumption PSK.
const (
	ResumptionApplication ResumptionUsage = 1
	ResumptionReInit      ResumptionUsage = 2
	ResumptionBranch      ResumptionUsage = 3
)

// PreSharedKeyID names a pre-shared key (RFC 9420 §8.4).
type PreSharedKeyID struct {
	Type PSKType
	// ID names an external PSK.
	ID []byte
	// Usage, GroupID and Epoch name a resumption PSK.
	Usage   ResumptionUsage
	GroupID []byte
	Epoch   uint64
	// Nonce is fresh in each proposal.
	Nonce []byte
}

func (id *PreSharedKeyID) append(b []byte) []byte {
	return appendOpaque(id.appendName(b), id.Nonce)
}

// appendName writes everything but the nonce.
func (id *PreSharedKeyID) appendName(b []byte) []byte {
	b = append(b, byte(id.Type))
	if id.Type == PSKExternal {
		return appendOpaque(b, id.ID)
	}
	b = append(b, byte(id.Usage))
	b = appendOpaque(b, id.GroupID)
	return appendUint64(b, id.Epoch)
}

func decodePreSharedKeyID(r *reader) *PreSharedKeyID {
	id := &PreSharedKeyID{Type: PSKType(r.uint8())}
	switch id.Type {
	case PSKExternal:
		id.ID = r.opaque()
	case PSKResumption:
		id.Usage = ResumptionUsage(r.uint8())
		if id.Usage < ResumptionApplication || id.Usage > ResumptionBranch {
			r.fail("resumption PSK usage")
		}
		id.GroupID, id.Epoch = r.opaque(), r.uint64()
	default:
		r.fail("PSK type")
	}
	id.Nonce = r.opaque()
	return id
}

// PSKStore looks up external pre-shared keys. The engine keeps resumption PSKs of
// its own groups' recent epochs itself and asks only for others.
type PSKStore interface {
	// PSK returns the key, or an error if it is not known.
	PSK(id *PreSharedKeyID) ([]byte, error)
}

// PSKFunc is a function that is a PSKStore.
type PSKFunc func(id *PreSharedKeyID) ([]byte, error)

// PSK calls the function.
func (f PSKFunc) PSK(id *PreSharedKeyID) ([]byte, error) { return f(id) }

// lookUpPSK asks the store. Its own error text is dropped: it may name the key.
func lookUpPSK(s PSKStore, id *PreSharedKeyID) ([]byte, error) {
	if s == nil {
		return nil, ErrUnknownPSK
	}
	psk, err := s.PSK(id)
	if err != nil {
		return nil, ErrUnknownPSK
	}
	return psk, nil
}

// pskInput is one pre-shared key in the order of its proposals.
type pskInput struct {
	id     *PreSharedKeyID
	secret []byte
}

// pskSecret folds the pre-shared keys into one (RFC 9420 §8.4).
func pskSecret(psks []pskInput) []byte {
	secret := make([]byte, hashSize)
	zero := make([]byte, hashSize)
	for i, p := range psks {
		extracted := extract(zero, p.secret)
		label := p.id.append(nil)
		label = appendUint16(label, uint16(i))
		label = appendUint16(label, uint16(len(psks))) //nolint:gosec // see checkPSKIDs.
		input := expandWithLabel(extracted, "derived psk", label, hashSize)
		next := extract(input, secret)
		clear(secret)
		clear(extracted)
		clear(input)
		secret = next
	}
	return secret
}

// checkPSKIDs refuses nonces of the wrong length and one PSK used twice (RFC 9420 §12.2).
func checkPSKIDs(ids []*PreSharedKeyID) error {
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if len(id.Nonce) != hashSize {
			return fmt.Errorf("%w: PSK nonce of %d bytes", ErrInvalidProposal, len(id.Nonce))
		}
		name := string(id.append(nil))
		if seen[name] {
			return fmt.Errorf("%w: PSK used twice", ErrInvalidProposal)
		}
		seen[name] = true
	}
	if len(ids) > 1<<16-1 {
		return fmt.Errorf("%w: too many PSKs", ErrInvalidProposal)
	}
	return nil
}
