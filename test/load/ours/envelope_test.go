package ours

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

func TestTheTemplateIsAsLongAsARealMessageAndACellTakesIt(t *testing.T) {
	t.Parallel()
	channel, id, text := ids.New(), ids.NewDelivery(time.Now()), noise(peer.ContentSize)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel, generation), Credential: mls.BasicCredential([]byte("somebody")), Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := group.Encrypt(text, id[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	made := newTemplate(channel).fill(id, text)
	if len(made) != len(encrypted) {
		t.Errorf("%d bytes, MLS makes %d", len(made), len(encrypted))
	}
	if _, err := mlspolicy.Application(made, channel, generation, id); err != nil {
		t.Error(err)
	}
	if back, err := content(made); err != nil || !bytes.Equal(back, text) {
		t.Errorf("another content came back: %v", err)
	}
	if _, err := content(made[:100]); err == nil {
		t.Error("a short payload had a content")
	}
}
