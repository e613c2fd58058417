package celltest

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Further adds a device to the person's account, on a connection of its own.
func (p *Person) Further(c *Cell) *Person {
	p.t.Helper()
	_, device, _ := ed25519.GenerateKey(nil)
	d := &Person{Name: p.Name, Password: p.Password, Root: p.Root, Device: device, Conn: c.Dial(p.t), t: p.t}
	d.Certificate = devicecert.Issue(p.Root, p.Certificate.AccountID, ids.New(), device.Public().(ed25519.PublicKey), time.Now())
	_, err := d.LoginOn(d.Conn, p.Name, p.Password)
	must(p.t, err)
	d.Session = Must[*wire.Session](d.Conn, &wire.StartSessionRequest{Certificate: d.Certificate.Marshal(), DeviceName: "further", Proof: d.Proof(d.Conn)})
	return d
}

// Account is the person's account.
func (p *Person) Account() ids.ID { return p.Certificate.AccountID }

// ID is the device's.
func (p *Person) ID() ids.ID { return p.Certificate.DeviceID }

// Chat is a channel from the side of one device in its group.
type Chat struct {
	*Person
	Channel    ids.ID
	Generation uint32
	Group      *mls.Group
}

// OpenGroup opens a group channel.
func (p *Person) OpenGroup() ids.ID {
	p.t.Helper()
	id := ids.New()
	Must[*wire.Channel](p.Conn, &wire.OpenGroupRequest{ChannelID: id})
	return id
}

// Started is a group that was made and not yet offered to the cell.
type Started struct {
	Chat    *Chat
	Request *wire.CreateGroupRequest
}

// Start makes the group of a channel's generation with these devices.
func (p *Person) Start(channel ids.ID, generation uint32, with ...*Person) *Started {
	p.t.Helper()
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel, generation), Credential: mls.BasicCredential(p.Certificate.Marshal()), Signer: p.Device})
	must(p.t, err)
	var adds []*mls.KeyPackage
	for _, w := range with {
		adds = append(adds, w.fresh())
	}
	pending, err := group.Commit(mls.CommitOptions{Adds: adds})
	must(p.t, err)
	must(p.t, group.Merge(pending))
	r := &wire.CreateGroupRequest{ChannelID: channel, Generation: generation, GroupInfo: pending.GroupInfo}
	for _, w := range with {
		r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: w.ID(), Welcome: pending.Welcome})
	}
	return &Started{&Chat{p, channel, generation, group}, r}
}

// fresh is a KeyPackage that travels by no cell.
func (p *Person) fresh() *mls.KeyPackage {
	p.t.Helper()
	m, err := mls.ParseMessage(p.KeyPackage())
	must(p.t, err)
	return m.KeyPackage
}

// Group opens a channel and makes its group with these devices; the first is of its admin.
func Group(t testing.TB, devices ...*Person) []*Chat {
	t.Helper()
	s := devices[0].Start(devices[0].OpenGroup(), 1, devices[1:]...)
	Must[*wire.CreateGroupResponse](devices[0].Conn, s.Request)
	return s.Chats(devices[1:]...)
}

// Chats are the sides of the creator and of those who join by their Welcomes, in hand.
func (s *Started) Chats(devices ...*Person) []*Chat {
	chats := []*Chat{s.Chat}
	for i, d := range devices {
		chats = append(chats, d.JoinWelcome(s.Chat.Channel, s.Chat.Generation, s.Request.Welcomes[i].Welcome))
	}
	return chats
}

// JoinWelcome joins a group by a Welcome.
func (p *Person) JoinWelcome(channel ids.ID, generation uint32, welcome []byte) *Chat {
	p.t.Helper()
	m, err := mls.ParseMessage(welcome)
	must(p.t, err)
	for _, b := range p.Bundles {
		g, err := mls.JoinGroup(m.Welcome, b, p.Device, mls.JoinOptions{})
		if errors.Is(err, mls.ErrNotAddressed) {
			continue
		}
		must(p.t, err)
		return &Chat{p, channel, generation, g}
	}
	p.t.Fatal("the Welcome is for none of the KeyPackages")
	return nil
}

// Text encrypts a text as an enqueue request.
func (c *Chat) Text(text string) *wire.EnqueueRequest {
	c.t.Helper()
	id := ids.NewDelivery(time.Now())
	payload, err := c.Group.Encrypt([]byte(text), id[:], 256)
	must(c.t, err)
	return &wire.EnqueueRequest{ChannelID: c.Channel, Generation: c.Generation, DeliveryID: id, Payload: payload}
}

// Change makes a Commit, and what there is to merge when the cell has taken it.
func (c *Chat) Change(o mls.CommitOptions, added ...*Person) (*wire.CommitRequest, *mls.PendingCommit) {
	c.t.Helper()
	id := ids.NewDelivery(time.Now())
	o.AuthenticatedData = id[:]
	for _, p := range added {
		o.Adds = append(o.Adds, p.fresh())
	}
	pending, err := c.Group.Commit(o)
	must(c.t, err)
	r := &wire.CommitRequest{ChannelID: c.Channel, Generation: c.Generation, Epoch: c.Group.Epoch(), DeliveryID: id, Commit: pending.Commit, GroupInfo: pending.GroupInfo}
	for _, p := range added {
		r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: p.ID(), Welcome: pending.Welcome})
	}
	return r, pending
}

// Commit has the cell take a Commit, and merges it.
func (c *Chat) Commit(o mls.CommitOptions, added ...*Person) (*wire.CommitRequest, *wire.CommitResponse) {
	c.t.Helper()
	r, pending := c.Change(o, added...)
	answer := Must[*wire.CommitResponse](c.Conn, r)
	must(c.t, c.Group.Merge(pending))
	return r, answer
}

// Leaf is where a device is in the group.
func (c *Chat) Leaf(p *Person) mls.LeafIndex {
	c.t.Helper()
	for _, m := range c.Group.Members() {
		if string(m.Credential.Identity) == string(p.Certificate.Marshal()) {
			return m.Index
		}
	}
	c.t.Fatalf("%s is not in the group", p.Name)
	return 0
}

// Removing is what removes devices.
func (c *Chat) Removing(devices ...*Person) mls.CommitOptions {
	var o mls.CommitOptions
	for _, d := range devices {
		o.Removes = append(o.Removes, c.Leaf(d))
	}
	return o
}

// Take applies a Commit or a proposal of another.
func (c *Chat) Take(message []byte) {
	c.t.Helper()
	must(c.t, c.TryTake(message, time.Now()))
}

// TryTake is Take of what was accepted at a time, or the reason why not.
func (c *Chat) TryTake(message []byte, at time.Time) error {
	m, err := mls.ParseMessage(message)
	if err != nil {
		return err
	}
	_, err = c.Group.Process(m, at)
	return err
}

// Propose makes a proposal.
func (c *Chat) Propose(o mls.ProposeOptions) *wire.ProposeRequest {
	c.t.Helper()
	id := ids.NewDelivery(time.Now())
	o.AuthenticatedData = id[:]
	b, err := c.Group.Propose(o)
	must(c.t, err)
	return &wire.ProposeRequest{ChannelID: c.Channel, Generation: c.Generation, DeliveryID: id, Proposal: b}
}

// External makes an external Commit by what the cell says of the group; resync replaces the device's earlier leaf.
func (p *Person) External(channel ids.ID, resync bool) (*wire.CommitRequest, *Chat) {
	p.t.Helper()
	info := Must[*wire.ChannelGroupInfo](p.Conn, &wire.GetGroupInfoRequest{ChannelID: channel})
	m, err := mls.ParseMessage(info.GroupInfo)
	must(p.t, err)
	id := ids.NewDelivery(time.Now())
	o := mls.ExternalJoinOptions{Credential: mls.BasicCredential(p.Certificate.Marshal()), Signer: p.Device, AuthenticatedData: id[:]}
	if len(info.RatchetTree) > 0 {
		o.RatchetTree = info.RatchetTree
	}
	if resync {
		public, err := mls.NewPublicGroup(m.GroupInfo, o.RatchetTree, nil)
		must(p.t, err)
		for _, l := range public.Members() {
			if string(l.Credential.Identity) == string(p.Certificate.Marshal()) {
				o.Resync = &l.Index
			}
		}
	}
	j, err := mls.JoinExternal(m.GroupInfo, o)
	must(p.t, err)
	return &wire.CommitRequest{ChannelID: channel, Generation: info.Generation, Epoch: info.Epoch, DeliveryID: id, Commit: j.Commit, GroupInfo: j.GroupInfo},
		&Chat{p, channel, info.Generation, j.Group}
}

// Revoke revokes the device behind the cell's back, as the call for it does: it is marked in its groups, and ends.
func (p *Person) Revoke(c *Cell) {
	p.t.Helper()
	id := p.ID()
	c.Execute(p.t, fmt.Sprintf(`UPDATE channels SET remove_first = array_append(coalesce(remove_first, '{}'), '%[1]x'::uuid) WHERE generation > 0 AND channel_id IN
		(SELECT channel_id FROM cursors WHERE device_id = '%[1]x' AND until_seq IS NULL)`, id[:]))
	c.Execute(p.t, fmt.Sprintf(`UPDATE devices SET revoked_at = now() WHERE device_id = '%x'`, id[:]))
	c.Execute(p.t, fmt.Sprintf(`DELETE FROM cursors WHERE device_id = '%x'`, id[:]))
}
