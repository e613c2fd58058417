package ours

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

const password = "password"

// device is an authenticated device with its connection.
type device struct {
	*link
	name    string
	root    ed25519.PrivateKey
	key     ed25519.PrivateKey
	account ids.ID
	cert    *devicecert.Certificate
}

// signup makes an account with its first device.
func (s *System) signup(ctx context.Context, name string, deliver func(*wire.Delivery)) (*device, error) {
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	d, err := s.newDevice(ctx, name, root, ids.New(), deliver)
	if err != nil {
		return nil, err
	}
	return d, d.register(ctx)
}

// another adds a device to d's account.
func (s *System) another(ctx context.Context, d *device, deliver func(*wire.Delivery)) (*device, error) {
	n, err := s.newDevice(ctx, d.name, d.root, d.account, deliver)
	if err != nil {
		return nil, err
	}
	return n, n.login(ctx)
}

func (s *System) newDevice(ctx context.Context, name string, root ed25519.PrivateKey, account ids.ID, deliver func(*wire.Delivery)) (*device, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	l, err := s.dial(ctx, deliver)
	if err != nil {
		return nil, err
	}
	public := key.Public().(ed25519.PublicKey)
	return &device{link: l, name: name, root: root, key: key, account: account,
		cert: devicecert.Issue(root, account, ids.New(), public, time.Now())}, nil
}

// quickly is a key stretching that takes no time: a cell does not see how it is done.
func quickly() *opaque.ClientOptions {
	o := opaqueconf.ClientOptions()
	o.KSFParameters = []uint64{1, 64, 1}
	return o
}

func (d *device) register(ctx context.Context) error {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return err
	}
	request, err := client.RegistrationInit([]byte(password))
	if err != nil {
		return err
	}
	start, err := call[*wire.SignupStartResponse](ctx, d.link, &wire.SignupStartRequest{Name: d.name, RegistrationRequest: request.Serialize()})
	if err != nil {
		return err
	}
	response, err := client.Deserialize.RegistrationResponse(start.RegistrationResponse)
	if err != nil {
		return err
	}
	record, _, err := client.RegistrationFinalize(response, nil, nil, quickly())
	if err != nil {
		return err
	}
	proof, err := d.prove(d.key)
	if err != nil {
		return err
	}
	_, err = call[*wire.Session](ctx, d.link, &wire.SignupFinishRequest{Name: d.name, RegistrationRecord: record.Serialize(),
		WrappedRootKey: []byte("wrapped root key"), Certificate: d.cert.Marshal(), DeviceName: "load", Proof: proof})
	return err
}

func (d *device) login(ctx context.Context) error {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return err
	}
	ke1, err := client.GenerateKE1([]byte(password))
	if err != nil {
		return err
	}
	start, err := call[*wire.LoginStartResponse](ctx, d.link, &wire.LoginStartRequest{Name: d.name, KE1: ke1.Serialize()})
	if err != nil {
		return err
	}
	ke2, err := client.Deserialize.KE2(start.KE2)
	if err != nil {
		return err
	}
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return err
	}
	if _, err := call[*wire.LoginFinishResponse](ctx, d.link, &wire.LoginFinishRequest{KE3: ke3.Serialize()}); err != nil {
		return err
	}
	proof, err := d.prove(d.key)
	if err != nil {
		return err
	}
	_, err = call[*wire.Session](ctx, d.link, &wire.StartSessionRequest{Certificate: d.cert.Marshal(), DeviceName: "load", Proof: proof})
	return err
}

// upload stores one KeyPackage, so that the device can be added to a group.
func (d *device) upload(ctx context.Context) error {
	b, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: mls.BasicCredential(d.cert.Marshal()), Signer: d.key,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	message, err := b.KeyPackage().MarshalMessage()
	if err != nil {
		return err
	}
	_, err = call[*wire.KeyPackageStatus](ctx, d.link, &wire.UploadKeyPackagesRequest{OneTime: [][]byte{message}})
	return err
}

// openChannel makes a channel with other accounts, and its group with all their devices: a direct one with one, a group's
// with more.
func (d *device) openChannel(ctx context.Context, others ...ids.ID) (ids.ID, error) {
	channel, err := d.newChannel(ctx, others)
	if err != nil {
		return ids.ID{}, err
	}
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel, generation), Credential: mls.BasicCredential(d.cert.Marshal()), Signer: d.key})
	if err != nil {
		return ids.ID{}, err
	}
	r := &wire.CreateGroupRequest{ChannelID: channel, Generation: generation}
	var adds []*mls.KeyPackage
	for _, other := range others {
		claimed, err := call[*wire.ClaimKeyPackagesResponse](ctx, d.link, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: other})
		if err != nil {
			return ids.ID{}, err
		}
		for _, p := range claimed.Packages {
			m, err := mls.ParseMessage(p.KeyPackage)
			if err != nil {
				return ids.ID{}, err
			}
			adds = append(adds, m.KeyPackage)
			r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: p.DeviceID})
		}
	}
	pending, err := group.Commit(mls.CommitOptions{Adds: adds})
	if err != nil {
		return ids.ID{}, err
	}
	r.GroupInfo = pending.GroupInfo
	for i := range r.Welcomes {
		r.Welcomes[i].Welcome = pending.Welcome
	}
	if _, err := call[*wire.CreateGroupResponse](ctx, d.link, r); err != nil {
		return ids.ID{}, fmt.Errorf("creating a group: %w", err)
	}
	return channel, nil
}

func (d *device) newChannel(ctx context.Context, others []ids.ID) (ids.ID, error) {
	if len(others) > 1 {
		id := ids.New()
		_, err := call[*wire.Channel](ctx, d.link, &wire.OpenGroupRequest{ChannelID: id})
		return id, err
	}
	c, err := call[*wire.Channel](ctx, d.link, &wire.OpenDMRequest{AccountID: others[0]})
	if err != nil {
		return ids.ID{}, err
	}
	return c.ChannelID, nil
}
