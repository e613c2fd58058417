package peer

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// Device is a device of an account. After its making only KeyPackages change, and those may come from any goroutine.
type Device struct {
	Name    string // The account's.
	Account ids.ID
	ID      ids.ID

	root, key   ed25519.PrivateKey
	certificate *devicecert.Certificate
	token       []byte

	mu      sync.Mutex
	bundles []*mls.KeyPackageBundle
}

func newDevice(name string, account ids.ID, root ed25519.PrivateKey) *Device {
	_, key, _ := ed25519.GenerateKey(nil)
	d := &Device{Name: name, Account: account, ID: ids.New(), root: root, key: key}
	d.certificate = devicecert.Issue(root, account, d.ID, key.Public().(ed25519.PublicKey), time.Now()) //nolint:forcetypeassert // its type.
	return d
}

// quickly stretches passwords that nobody guards in no time.
func quickly() *opaque.ClientOptions {
	o := opaqueconf.ClientOptions()
	o.KSFParameters = []uint64{1, 64, 1}
	return o
}

func password(name string) []byte { return []byte("password of " + name) }

// Signup makes an account with a device, on a fresh connection.
func Signup(ctx context.Context, c *Conn, name string) (*Device, error) {
	_, root, _ := ed25519.GenerateKey(nil)
	d := newDevice(name, ids.New(), root)
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, err
	}
	request, err := client.RegistrationInit(password(name))
	if err != nil {
		return nil, err
	}
	start, err := Ask[*wire.SignupStartResponse](ctx, c, &wire.SignupStartRequest{Name: name, RegistrationRequest: request.Serialize()})
	if err != nil {
		return nil, err
	}
	response, err := client.Deserialize.RegistrationResponse(start.RegistrationResponse)
	if err != nil {
		return nil, err
	}
	registration, _, err := client.RegistrationFinalize(response, nil, nil, quickly())
	if err != nil {
		return nil, err
	}
	proof, err := d.proof(c)
	if err != nil {
		return nil, err
	}
	session, err := Ask[*wire.Session](ctx, c, &wire.SignupFinishRequest{Name: name, RegistrationRecord: registration.Serialize(), WrappedRootKey: []byte("wrapped root key"),
		Certificate: d.certificate.Marshal(), DeviceName: "first", Proof: proof, OpaqueKey: start.OpaqueKey})
	if err != nil {
		return nil, err
	}
	d.token = session.AccessToken
	return d, nil
}

// Further adds a device to the account, on a fresh connection.
func (d *Device) Further(ctx context.Context, c *Conn) (*Device, error) {
	f := newDevice(d.Name, d.Account, d.root)
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, err
	}
	ke1, err := client.GenerateKE1(password(d.Name))
	if err != nil {
		return nil, err
	}
	start, err := Ask[*wire.LoginStartResponse](ctx, c, &wire.LoginStartRequest{Name: d.Name, KE1: ke1.Serialize()})
	if err != nil {
		return nil, err
	}
	ke2, err := client.Deserialize.KE2(start.KE2)
	if err != nil {
		return nil, err
	}
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return nil, err
	}
	if _, err := Ask[*wire.LoginFinishResponse](ctx, c, &wire.LoginFinishRequest{KE3: ke3.Serialize()}); err != nil {
		return nil, err
	}
	proof, err := f.proof(c)
	if err != nil {
		return nil, err
	}
	session, err := Ask[*wire.Session](ctx, c, &wire.StartSessionRequest{Certificate: f.certificate.Marshal(), DeviceName: "further", Proof: proof})
	if err != nil {
		return nil, err
	}
	f.token = session.AccessToken
	return f, nil
}

// proof binds the device to a connection.
func (d *Device) proof(c *Conn) ([]byte, error) {
	exporter, err := c.Exporter()
	if err != nil {
		return nil, err
	}
	return devicecert.Prove(d.key, exporter), nil
}

// Authenticate makes a connection the device's.
func (d *Device) Authenticate(ctx context.Context, c *Conn) error {
	proof, err := d.proof(c)
	if err != nil {
		return err
	}
	_, err = Ask[*wire.AuthenticateResponse](ctx, c, &wire.AuthenticateRequest{AccessToken: d.token, Proof: proof})
	return err
}

// KeyPackage makes a KeyPackage (an MLSMessage) and keeps its private keys.
func (d *Device) KeyPackage(lastResort bool) ([]byte, error) {
	b, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: mls.BasicCredential(d.certificate.Marshal()), Signer: d.key, LastResort: lastResort,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(20 * time.Hour)})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.bundles = append(d.bundles, b)
	d.mu.Unlock()
	return b.KeyPackage().MarshalMessage()
}

// Started is a group that was made by one device and is to be offered to the cell.
type Started struct {
	Group   *mls.Group
	Request *wire.CreateGroupRequest
	Welcome []byte
}

// Start makes the group of a channel's generation with the devices whose KeyPackages (MLSMessages) are given.
func (d *Device) Start(channel ids.ID, generation uint32, with map[ids.ID][]byte) (*Started, error) {
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel, generation), Credential: mls.BasicCredential(d.certificate.Marshal()), Signer: d.key})
	if err != nil {
		return nil, err
	}
	r := &wire.CreateGroupRequest{ChannelID: channel, Generation: generation}
	var adds []*mls.KeyPackage
	for device, b := range with {
		m, err := mls.ParseMessage(b)
		if err != nil || m.KeyPackage == nil {
			return nil, fmt.Errorf("what was claimed is no KeyPackage: %w", err)
		}
		adds = append(adds, m.KeyPackage)
		r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: device})
	}
	pending, err := group.Commit(mls.CommitOptions{Adds: adds})
	if err != nil {
		return nil, err
	}
	if err := group.Merge(pending); err != nil {
		return nil, err
	}
	r.GroupInfo = pending.GroupInfo
	for i := range r.Welcomes {
		r.Welcomes[i].Welcome = pending.Welcome
	}
	return &Started{group, r, pending.Welcome}, nil
}

// Join joins a group by a Welcome.
func (d *Device) Join(welcome []byte) (*mls.Group, error) {
	m, err := mls.ParseMessage(welcome)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.bundles {
		if g, err := mls.JoinGroup(m.Welcome, b, d.key, mls.JoinOptions{}); err == nil {
			return g, nil
		}
	}
	return nil, fmt.Errorf("the Welcome is for none of the device's %d KeyPackages", len(d.bundles))
}
