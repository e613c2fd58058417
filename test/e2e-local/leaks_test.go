package e2elocal

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
)

// What the cells log and what the SDK logs is kept, and at the end of each test searched for what is in the profiles of
// its people: names, passphrases, tokens, private keys.

// learnProfile adds what is in a profile to what must not be in a log. A profile that is gone, or has another
// passphrase by now, is passed over.
func learnProfile(t testing.TB, s *celltest.Secrets, o client.Options) {
	t.Helper()
	store, err := keystore.Open(o.Profile, o.Passphrase)
	if err != nil {
		return
	}
	err = store.View(context.WithoutCancel(t.Context()), func(tx *keystore.Tx) error {
		names, err := tx.List("")
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := tx.Get(name)
			if err != nil {
				return err
			}
			var record any
			if err := json.Unmarshal(b, &record); err != nil {
				return err
			}
			learnRecord(s, name, "", record)
		}
		return nil
	})
	if err != nil {
		t.Errorf("reading a profile: %v", err)
	}
}

// learnRecord walks through a record of a profile: bytes are base64 in it, and all keys and tokens are bytes.
func learnRecord(s *celltest.Secrets, record, field string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			learnRecord(s, record, k, e)
		}
	case []any:
		for _, e := range v {
			learnRecord(s, record, field, e)
		}
	case string:
		switch field {
		case "Name", "From":
			s.Name(v)
		case "Text":
			s.Text("a message", v)
		default:
			if _, err := ids.Parse(v); err == nil { // Ids may be logged.
				return
			}
			if b, err := base64.StdEncoding.DecodeString(v); err == nil && len(b) >= 24 {
				s.Bytes("the profile's "+record+"."+field, b)
			}
		}
	}
}

func TestProfilesAreLearned(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	wilhelmina, bob := c.signup("wilhelmina"), c.signup("bob")
	wilhelmina.dm(bob, "words of a message")
	bob.expect("words of a message")
	tokens := struct{ AccessToken, RefreshToken []byte }{}
	readRecord(t, wilhelmina.opts, "session", &tokens)
	var account struct{ DeviceSeed []byte }
	readRecord(t, wilhelmina.opts, "account", &account)
	s := celltest.SecretsOf(t)
	learnProfile(t, s, wilhelmina.opts)
	for what, leak := range map[string]string{"a name": "wilhelmina", "an access token": fmt.Sprintf("%x", tokens.AccessToken), "a refresh token": base64.StdEncoding.EncodeToString(tokens.RefreshToken),
		"a device key": strings.Trim(fmt.Sprintf("%d", account.DeviceSeed), "[]"), "a passphrase": password} {
		if len(s.Leaks("a line with "+leak+" in it")) == 0 {
			t.Errorf("nobody would see %s in a log", what)
		}
	}
	if !strings.Contains(c.logged.String(), "account created") {
		t.Error("the log that is searched is not the cell's")
	}
}

// readRecord reads one record of a profile.
func readRecord(t *testing.T, o client.Options, name string, v any) {
	t.Helper()
	store, err := keystore.Open(o.Profile, o.Passphrase)
	if err != nil {
		t.Fatal(err)
	}
	err = store.View(t.Context(), func(tx *keystore.Tx) error {
		b, err := tx.Get(name)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, v)
	})
	if err != nil {
		t.Fatal(err)
	}
}
