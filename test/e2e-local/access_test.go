package e2elocal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// awaitAccount waits until the cell has an account of that name: its password opens it.
func (c *cell) awaitAccount(name string) {
	for range 500 {
		o := c.options()
		o.RetryFor = time.Nanosecond
		login, err := client.Login(c.t.Context(), o, name)
		if err == nil {
			login.Close()
			return
		}
		if !wire.HasCode(err, wire.CodeInvalidCredentials) && !conn.Transient(err) {
			c.t.Error(err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Errorf("the cell never had an account %s", name)
}

// plantOutbox writes a message into the profile's outbox that was never sent.
func (p *person) plantOutbox(channel, id ids.ID, text string) {
	p.t.Helper()
	store, err := keystore.Open(p.opts.Profile, p.opts.Passphrase)
	if err != nil {
		p.t.Fatal(err)
	}
	name := "channel-" + channel.String()
	err = store.Update(p.t.Context(), func(tx *keystore.Tx) error {
		b, err := tx.Get(name)
		if err != nil {
			return err
		}
		var record map[string]any
		if err := json.Unmarshal(b, &record); err != nil {
			return err
		}
		record["Outbox"] = []any{map[string]any{"DeliveryID": id, "Generation": 1, "Payload": []byte("old"), "Text": text}}
		if b, err = json.Marshal(record); err != nil {
			return err
		}
		return tx.Put(name, b)
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// editRecord changes a record of the profile as JSON.
func (p *person) editRecord(name string, change func(map[string]any)) {
	p.t.Helper()
	store, err := keystore.Open(p.opts.Profile, p.opts.Passphrase)
	if err != nil {
		p.t.Fatal(err)
	}
	err = store.Update(p.t.Context(), func(tx *keystore.Tx) error {
		b, err := tx.Get(name)
		if err != nil {
			return err
		}
		var record map[string]any
		if err := json.Unmarshal(b, &record); err != nil {
			return err
		}
		change(record)
		if b, err = json.Marshal(record); err != nil {
			return err
		}
		return tx.Put(name, b)
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// database is the cell's.
func (c *cell) database() string {
	c.t.Helper()
	b, err := os.ReadFile(c.path("database"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// recordTimes changes whenever a channel's record does.
func (p *person) recordTimes() string {
	files, err := filepath.Glob(filepath.Join(p.opts.Profile, "records", "channel-*"))
	if err != nil {
		p.t.Error(err)
	}
	var all string
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			all += info.Name() + info.ModTime().String()
		}
	}
	return all
}
