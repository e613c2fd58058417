package celltest

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// Person is an account with one device, and the device's connection.
type Person struct {
	Name, Password string
	Root, Device   ed25519.PrivateKey
	Certificate    *devicecert.Certificate
	Session        *wire.Session
	Conn           *Conn
	Bundles        []*mls.KeyPackageBundle
	Invitation     []byte // For signup, where the cell asks for one.

	t testing.TB
}

// Signup makes an account on a fresh connection.
func (c *Cell) Signup(t testing.TB, name string) *Person {
	t.Helper()
	return c.SignupAt(t, c.Dial(t), name)
}

// SignupAt makes an account on a connection.
func (c *Cell) SignupAt(t testing.TB, conn *Conn, name string) *Person {
	t.Helper()
	return newPerson(t, conn, name).signup()
}

func newPerson(t testing.TB, conn *Conn, name string) *Person {
	t.Helper()
	_, root, _ := ed25519.GenerateKey(nil)
	_, device, _ := ed25519.GenerateKey(nil)
	p := &Person{Name: name, Password: "password of " + name, Root: root, Device: device, Conn: conn, t: t}
	p.private()
	p.Certificate = devicecert.Issue(root, ids.New(), ids.New(), device.Public().(ed25519.PublicKey), time.Now())
	return p
}

// SignupInvited makes an account by an invitation, on a fresh connection.
func (c *Cell) SignupInvited(t testing.TB, name string, invitation []byte) *Person {
	t.Helper()
	p := newPerson(t, c.Dial(t), name)
	p.Invitation = invitation
	return p.signup()
}

func (p *Person) signup() *Person {
	p.t.Helper()
	session, err := p.SignupOn(p.Conn, p.Name)
	must(p.t, err)
	p.Session = session
	return p
}

// private tells the test's secrets of what the person sends nobody.
func (p *Person) private() {
	s := SecretsOf(p.t)
	s.Text("a password", p.Password)
	s.Bytes("a root key", p.Root.Seed())
	s.Bytes("a device key", p.Device.Seed())
}

// SignupOn runs the signup calls on a connection.
func (p *Person) SignupOn(conn *Conn, name string) (*wire.Session, error) {
	client, err := opaqueconf.Configuration().Client()
	must(p.t, err)
	request, err := client.RegistrationInit([]byte(p.Password))
	must(p.t, err)
	body, err := conn.Call(&wire.SignupStartRequest{Name: name, RegistrationRequest: request.Serialize(), Invitation: p.Invitation})
	if err != nil {
		return nil, err
	}
	response, err := client.Deserialize.RegistrationResponse(body.(*wire.SignupStartResponse).RegistrationResponse)
	must(p.t, err)
	record, _, err := client.RegistrationFinalize(response, nil, nil, quickly())
	must(p.t, err)
	body, err = conn.Call(&wire.SignupFinishRequest{Name: name, RegistrationRecord: record.Serialize(), WrappedRootKey: []byte("wrapped root key"),
		Certificate: p.Certificate.Marshal(), DeviceName: "test", Proof: p.Proof(conn), Invitation: p.Invitation})
	if err != nil {
		return nil, err
	}
	return body.(*wire.Session), nil
}

// quickly is a key stretching that takes no time, for passwords that nobody guards: a cell does not see how it is
// done. The client's own tests are about the real one.
func quickly() *opaque.ClientOptions {
	o := opaqueconf.ClientOptions()
	o.KSFParameters = []uint64{1, 64, 1}
	return o
}

// Proof binds the device to a connection.
func (p *Person) Proof(conn *Conn) []byte { return devicecert.Prove(p.Device, conn.Exporter()) }

// LoginOn proves the password on a connection, without starting a session.
func (p *Person) LoginOn(conn *Conn, name, password string) (*wire.LoginFinishResponse, error) {
	client, err := opaqueconf.Configuration().Client()
	must(p.t, err)
	ke1, err := client.GenerateKE1([]byte(password))
	must(p.t, err)
	body, err := conn.Call(&wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()})
	if err != nil {
		return nil, err
	}
	ke2, err := client.Deserialize.KE2(body.(*wire.LoginStartResponse).KE2)
	must(p.t, err)
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return nil, errors.Join(ErrWrongPassword, err)
	}
	body, err = conn.Call(&wire.LoginFinishRequest{KE3: ke3.Serialize()})
	if err != nil {
		return nil, err
	}
	return body.(*wire.LoginFinishResponse), nil
}

// ErrWrongPassword says that the client itself found, from KE2, that the password is wrong.
var ErrWrongPassword = errors.New("the password does not open the envelope")

// Reconnect opens a new connection and authenticates it with the access token.
func (p *Person) Reconnect(c *Cell) {
	p.t.Helper()
	p.Conn = c.Dial(p.t)
	Must[*wire.AuthenticateResponse](p.Conn, &wire.AuthenticateRequest{AccessToken: p.Session.AccessToken, Proof: p.Proof(p.Conn)})
}

// Another adds a device to the person's account by password, on a connection of its own.
func (p *Person) Another(c *Cell) *Person {
	p.t.Helper()
	_, device, _ := ed25519.GenerateKey(nil)
	q := &Person{Name: p.Name, Password: p.Password, Root: p.Root, Device: device, Conn: c.Dial(p.t), t: p.t,
		Certificate: devicecert.Issue(p.Root, p.Certificate.AccountID, ids.New(), device.Public().(ed25519.PublicKey), time.Now())}
	q.private()
	q.Begin()
	return q
}

// Begin logs in on the connection and starts a session of the device.
func (p *Person) Begin() {
	p.t.Helper()
	_, err := p.LoginOn(p.Conn, p.Name, p.Password)
	must(p.t, err)
	p.Session = Must[*wire.Session](p.Conn, &wire.StartSessionRequest{Certificate: p.Certificate.Marshal(), DeviceName: "another", Proof: p.Proof(p.Conn)})
}

// Return is Begin on a fresh connection, after something of the person was restored: a server hears of that in a moment, and
// until then answers that the session was ended.
func (p *Person) Return(c *Cell) {
	p.t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		p.Conn = c.Dial(p.t)
		_, err := p.LoginOn(p.Conn, p.Name, p.Password)
		must(p.t, err)
		body, err := p.Conn.Call(&wire.StartSessionRequest{Certificate: p.Certificate.Marshal(), DeviceName: "another", Proof: p.Proof(p.Conn)})
		if err == nil {
			p.Session = body.(*wire.Session)
			return
		}
		if !wire.HasCode(err, wire.CodeInvalidToken) || time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
}

// KeyPackage makes a KeyPackage and keeps its bundle.
func (p *Person) KeyPackage(change ...func(*mls.KeyPackageOptions)) []byte {
	p.t.Helper()
	o := mls.KeyPackageOptions{Credential: mls.BasicCredential(p.Certificate.Marshal()), Signer: p.Device,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	for _, f := range change {
		f(&o)
	}
	b, err := mls.NewKeyPackage(o)
	must(p.t, err)
	p.Bundles = append(p.Bundles, b)
	message, err := b.KeyPackage().MarshalMessage()
	must(p.t, err)
	return message
}

// Upload stores n one-time KeyPackages.
func (p *Person) Upload(n int) *wire.KeyPackageStatus {
	p.t.Helper()
	r := &wire.UploadKeyPackagesRequest{}
	for range n {
		r.OneTime = append(r.OneTime, p.KeyPackage())
	}
	return Must[*wire.KeyPackageStatus](p.Conn, r)
}

// DM is a direct channel with its group, from its creator's side.
type DM struct {
	Channel ids.ID
	Group   *mls.Group
	Request *wire.CreateGroupRequest
}

// Open opens the DM with another person and prepares its first group; Create sends it.
func (p *Person) Open(other *Person) *DM {
	p.t.Helper()
	channel := Must[*wire.Channel](p.Conn, &wire.OpenDMRequest{AccountID: other.Certificate.AccountID})
	claimed := Must[*wire.ClaimKeyPackagesResponse](p.Conn, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: other.Certificate.AccountID})
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel.ChannelID, 1), Credential: mls.BasicCredential(p.Certificate.Marshal()), Signer: p.Device})
	must(p.t, err)
	var adds []*mls.KeyPackage
	for _, c := range claimed.Packages {
		m, err := mls.ParseMessage(c.KeyPackage)
		must(p.t, err)
		adds = append(adds, m.KeyPackage)
	}
	pending, err := group.Commit(mls.CommitOptions{Adds: adds})
	must(p.t, err)
	must(p.t, group.Merge(pending))
	r := &wire.CreateGroupRequest{ChannelID: channel.ChannelID, Generation: 1, GroupInfo: pending.GroupInfo}
	for _, c := range claimed.Packages {
		r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: c.DeviceID, Welcome: pending.Welcome})
	}
	return &DM{channel.ChannelID, group, r}
}

// Create opens the DM and creates its group.
func (p *Person) Create(other *Person) *DM {
	p.t.Helper()
	dm := p.Open(other)
	Must[*wire.CreateGroupResponse](p.Conn, dm.Request)
	return dm
}

// Message encrypts text as an enqueue request with a fresh delivery id.
func (d *DM) Message(t testing.TB, text string) *wire.EnqueueRequest {
	t.Helper()
	id := ids.NewDelivery(time.Now())
	payload, err := d.Group.Encrypt([]byte(text), id[:], 256)
	must(t, err)
	return &wire.EnqueueRequest{ChannelID: d.Channel, Generation: 1, DeliveryID: id, Payload: payload}
}

// Join joins the group of a Welcome that came in a Delivery.
func (p *Person) Join(d *wire.Delivery) *DM {
	p.t.Helper()
	m, err := mls.ParseMessage(d.Payload)
	must(p.t, err)
	for _, b := range p.Bundles {
		g, err := mls.JoinGroup(m.Welcome, b, p.Device, mls.JoinOptions{})
		if errors.Is(err, mls.ErrNotAddressed) {
			continue
		}
		must(p.t, err)
		return &DM{d.AboutChannelID, g, nil}
	}
	p.t.Fatal("the Welcome is for none of the KeyPackages")
	return nil
}

// Read decrypts a Delivery.
func (d *DM) Read(t testing.TB, delivery *wire.Delivery) string {
	t.Helper()
	m, err := mls.ParseMessage(delivery.Payload)
	must(t, err)
	p, err := d.Group.Process(m, delivery.AcceptedAt)
	must(t, err)
	return string(p.Data)
}
