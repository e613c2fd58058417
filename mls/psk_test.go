package mls

import (
	"errors"
	"testing"
)

func TestVectorsPSKSecret(t *testing.T) {
	t.Parallel()
	type vector struct {
		PSKs []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes
			Nonce hexBytes `json:"psk_nonce"`
		}
		Secret hexBytes `json:"psk_secret"`
	}
	runVectors(t, "psk_secret", 11, func(t *testing.T, v vector) {
		var in []pskInput
		for _, p := range v.PSKs {
			in = append(in, pskInput{id: &PreSharedKeyID{Type: PSKExternal, ID: p.ID, Nonce: p.Nonce}, secret: p.PSK})
		}
		wantBytes(t, "psk_secret", pskSecret(in), v.Secret)
	})
}

func TestCheckPSKIDs(t *testing.T) {
	t.Parallel()
	a := &PreSharedKeyID{Type: PSKExternal, ID: []byte("a"), Nonce: make([]byte, 32)}
	short := &PreSharedKeyID{Type: PSKExternal, ID: []byte("a"), Nonce: make([]byte, 31)}
	if err := checkPSKIDs([]*PreSharedKeyID{a}); err != nil {
		t.Error(err)
	}
	for name, ids := range map[string][]*PreSharedKeyID{"twice": {a, a}, "short nonce": {short}} {
		if err := checkPSKIDs(ids); !errors.Is(err, ErrInvalidProposal) {
			t.Errorf("%s: got %v, want ErrInvalidProposal", name, err)
		}
	}
}
