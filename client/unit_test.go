package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account is somebody with a root key, whose devices are made by makeDevice.
type account struct {
	wire.Account
	root ed25519.PrivateKey
}

func makeAccount(t *testing.T, name string) *account {
	t.Helper()
	public, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &account{wire.Account{AccountID: ids.New(), Name: name, RootKey: public}, root}
}

// makeDevice makes a Client with a profile and without a cell.
func (a *account) makeDevice(t *testing.T) *Client {
	t.Helper()
	store, err := keystore.Create(t.TempDir()+"/profile", []byte("x"), keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	device := ids.New()
	self := &accountRecord{Name: a.Name, AccountID: a.AccountID, DeviceID: device, DeviceSeed: private.Seed(), RootKey: a.RootKey,
		Certificate: devicecert.Issue(a.root, a.AccountID, device, public, time.Now()).Marshal()}
	c, err := newClient(Options{}.withDefaults(), store, self)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keyPackage makes a KeyPackage of c, and keeps its private half as an upload would.
func keyPackage(t *testing.T, c *Client) *mls.KeyPackage {
	t.Helper()
	message, bundle, err := c.makeKeyPackage(time.Now(), time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	err = update(t.Context(), c.store, keyPackagesName, func(r *keyPackagesRecord) (bool, error) {
		r.Bundles = append(r.Bundles, bundle)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := mls.ParseMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	return m.KeyPackage
}

func know(t *testing.T, c *Client, a *account) {
	t.Helper()
	if err := c.remember(t.Context(), &a.Account); err != nil {
		t.Fatal(err)
	}
}

// fakeCell answers what a Welcome's recipient asks.
type fakeCell struct{ channel wire.Channel }

func (f *fakeCell) Call(_ context.Context, req wire.Request) (wire.Response, error) {
	if r, ok := req.(*wire.OpenDMRequest); ok && r.AccountID == f.channel.Peer.AccountID {
		ch := f.channel
		return &ch, nil
	}
	return nil, wire.Errorf(wire.CodeNotFound, "not here")
}

// pair is two accounts with a device each and a channel between them, whose group alice has made.
type pair struct {
	t          *testing.T
	a, b       *account
	alice, bob *Client
	channel    ids.ID
	made       *creation
	group      *mls.Group // Alice's.
	seq        uint64
}

func makePair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, a: makeAccount(t, "alice"), b: makeAccount(t, "bob"), channel: ids.New()}
	p.alice, p.bob = p.a.makeDevice(t), p.b.makeDevice(t)
	know(t, p.alice, p.b)
	p.makeGroup(p.channel, 1, keyPackage(t, p.bob))
	return p
}

func (p *pair) makeGroup(channel ids.ID, generation uint32, members ...*mls.KeyPackage) {
	p.t.Helper()
	var err error
	p.made, err = p.alice.makeGroup(p.t.Context(), &wire.Channel{ChannelID: channel, Peer: p.b.Account}, generation, members)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.group, err = mls.UnmarshalGroup(p.made.State, p.alice.device, anyRoot{}); err != nil {
		p.t.Fatal(err)
	}
}

// cell is what bob asks about the Welcome.
func (p *pair) cell() *fakeCell {
	return &fakeCell{wire.Channel{ChannelID: p.channel, Generation: 1, Peer: p.a.Account}}
}

func (p *pair) welcome() *wire.Delivery {
	return &wire.Delivery{ChannelID: p.bob.self.DeviceID, Seq: 1, Kind: wire.KindWelcome, Generation: 1, AboutChannelID: p.channel,
		SenderAccountID: p.a.AccountID, SenderDeviceID: p.alice.self.DeviceID, DeliveryID: ids.NewDelivery(time.Now()),
		AcceptedAt: time.Now(), Payload: p.made.Welcome}
}

// join lets bob handle the Welcome.
func (p *pair) join() *pair {
	p.t.Helper()
	if _, err := p.bob.welcome(p.t.Context(), p.cell(), 1, p.welcome()); err != nil {
		p.t.Fatal(err)
	}
	if rec := p.record(); rec.newest() != 1 {
		p.t.Fatalf("bob did not join: %+v", p.inbox().Unread)
	}
	return p
}

func (p *pair) record() *channelRecord { return p.load(p.channel) }
func (p *pair) inbox() *channelRecord  { return p.load(p.bob.self.DeviceID) }

func (p *pair) load(id ids.ID) *channelRecord {
	p.t.Helper()
	rec, _, err := get[channelRecord](p.t.Context(), p.bob.store, channelName(id))
	if err != nil {
		p.t.Fatal(err)
	}
	return rec
}

// send makes a delivery of a message by alice.
func (p *pair) send(text string) *wire.Delivery {
	p.t.Helper()
	content, err := wire.MarshalContent(wire.Content{SentAt: time.UnixMilli(5), Text: text})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.sendContent(content)
}

func (p *pair) sendContent(content []byte) *wire.Delivery {
	p.t.Helper()
	id := ids.NewDelivery(time.Now())
	payload, err := p.group.Encrypt(content, id[:], 256)
	if err != nil {
		p.t.Fatal(err)
	}
	p.seq++
	return &wire.Delivery{ChannelID: p.channel, Seq: p.seq, PrevSeq: p.seq - 1, Kind: wire.KindApplication, Generation: 1,
		SenderAccountID: p.a.AccountID, SenderDeviceID: p.alice.self.DeviceID, DeliveryID: id, AcceptedAt: time.Now(), Payload: payload}
}

func (p *pair) receive(epoch uint64, ds ...*wire.Delivery) outcome {
	p.t.Helper()
	out, err := p.bob.receive(p.t.Context(), p.channel, epoch, ds, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// expect compares what bob has not read yet; a failure is written as its code in brackets.
func (p *pair) expect(rec *channelRecord, want ...string) {
	p.t.Helper()
	var got []string
	for _, l := range rec.Unread {
		if l.Failure != nil {
			got = append(got, "["+l.Failure.Code+"]")
		} else {
			got = append(got, l.Text)
		}
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		p.t.Errorf("unread is %q, want %q", got, want)
	}
}

func isRootKeyChanged(err error) bool {
	var changed *RootKeyChangedError
	return errors.As(err, &changed)
}
