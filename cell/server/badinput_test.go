package server_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// alive proves that the connection survived.
func alive(t *testing.T, c *celltest.Conn) {
	t.Helper()
	celltest.Must[*wire.HelloResponse](c, &wire.HelloRequest{Client: "test", MinVersion: 1, MaxVersion: 1})
}

// envelope builds a frame that wire.Marshal would not.
func envelope(t *testing.T, fill func(schema.Envelope) error) []byte {
	t.Helper()
	b, err := frame.Build(512, func(seg *capnp.Segment) error {
		e, err := schema.NewRootEnvelope(seg)
		if err != nil {
			return err
		}
		e.SetVersion(schema.Version)
		e.SetCorrelationId(7)
		return fill(e)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantAnswer waits for the error of a correlation id.
func wantAnswer(t *testing.T, c *celltest.Conn, id uint64, code wire.Code) {
	t.Helper()
	_, err := c.Answer(id)
	if !wire.HasCode(err, code) {
		t.Fatalf("want %s, got %v", code, err)
	}
}

func TestMalformedFramesAreAnsweredAndSurvived(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	request, err := wire.Marshal(wire.Envelope{CorrelationID: 7, Body: &wire.HelloRequest{Client: "x", MinVersion: 1, MaxVersion: 1}})
	if err != nil {
		t.Fatal(err)
	}
	wild := bytes.Clone(request)
	binary.LittleEndian.PutUint32(wild[8:], 0x7ffffffc) // The root pointer leads far outside.
	cases := map[string]struct {
		frame []byte
		id    uint64
		code  wire.Code
	}{
		"unknown version": {envelope(t, func(e schema.Envelope) error { e.SetVersion(99); return nil }), 7, wire.CodeUnsupportedVersion},
		"no body":         {envelope(t, func(schema.Envelope) error { return nil }), 7, wire.CodeMalformed},
		"unknown method": {envelope(t, func(e schema.Envelope) error {
			q, err := e.NewRequest()
			capnp.Struct(q).SetUint16(0, 900) // The union's discriminant.
			return err
		}), 7, wire.CodeUnknownMethod},
		"a response": {envelope(t, func(e schema.Envelope) error {
			p, err := e.NewResponse()
			p.SetDone()
			return err
		}), 7, wire.CodeMalformed},
		"wild root pointer": {wild, 0, wire.CodeMalformed},
		"empty message":     {make([]byte, 8), 0, wire.CodeMalformed},
		"short id": {envelope(t, func(e schema.Envelope) error {
			q, err := e.NewRequest()
			if err != nil {
				return err
			}
			r, err := q.NewOpenDm()
			return errors.Join(err, r.SetAccountId([]byte("short")))
		}), 7, wire.CodeInvalidArgument},
	}
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := c.Dial(t)
			conn.Write(x.frame)
			wantAnswer(t, conn, x.id, x.code)
			alive(t, conn)
		})
	}
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		conn := c.Dial(t)
		conn.Write(request[:len(request)-8])
		if err := conn.Control.Close(); err != nil {
			t.Fatal(err)
		}
		conn.Ended(t)
		alive(t, c.Dial(t)) // The server lives.
	})
}

func TestOversizeFrames(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	header := func(words uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0, 0, 0, 0}, words) }
	t.Run("of a stranger end the connection", func(t *testing.T) {
		t.Parallel()
		conn := c.Dial(t)
		conn.Write(header(1 << 20))
		wantAnswer(t, conn, 0, wire.CodeFrameTooLarge)
		conn.Ended(t)
	})
	t.Run("of a device are read over", func(t *testing.T) {
		t.Parallel()
		conn := c.Signup(t, "over").Conn
		conn.Write(append(header(frame.ControlLimit/8), make([]byte, frame.ControlLimit)...))
		wantAnswer(t, conn, 0, wire.CodeFrameTooLarge)
		alive(t, conn)
	})
	t.Run("of absurd size end the connection", func(t *testing.T) {
		t.Parallel()
		conn := c.Signup(t, "absurd").Conn
		conn.Write(header(1 << 31))
		wantAnswer(t, conn, 0, wire.CodeFrameTooLarge)
		conn.Ended(t)
	})
	t.Run("on a stream of their own are refused", func(t *testing.T) {
		t.Parallel()
		conn := c.Signup(t, "large").Conn
		conn.SendLarge(header(wire.MaxFrame / 8))
		wantAnswer(t, conn, 0, wire.CodeFrameTooLarge)
		alive(t, conn)
	})
	t.Run("with too many segments end the connection", func(t *testing.T) {
		t.Parallel()
		conn := c.Dial(t)
		conn.Write(binary.LittleEndian.AppendUint32(nil, 5000))
		wantAnswer(t, conn, 0, wire.CodeMalformed)
		conn.Ended(t)
	})
}

func TestStrangersMayOnlyKnock(t *testing.T) {
	t.Parallel()
	conn := celltest.New(t).Dial(t)
	id := ids.New()
	for _, r := range []wire.Request{
		&wire.UploadKeyPackagesRequest{}, &wire.KeyPackageStatusRequest{}, &wire.ClaimKeyPackagesRequest{RequestID: id, AccountID: id},
		&wire.GetAccountRequest{Name: "alice"}, &wire.OpenDMRequest{AccountID: id}, &wire.SubscribeRequest{}, &wire.AckRequest{},
		&wire.CreateGroupRequest{ChannelID: id, Generation: 1, GroupInfo: []byte{1}},
		&wire.EnqueueRequest{ChannelID: id, Generation: 1, DeliveryID: id, Payload: []byte{1}},
	} {
		conn.Refused(r, wire.CodeUnauthenticated)
	}
	conn.Refused(&wire.StartSessionRequest{Certificate: make([]byte, devicecert.Size), Proof: make([]byte, 64)}, wire.CodeUnauthenticated)
	conn.Refused(&wire.LoginFinishRequest{KE3: []byte{1}}, wire.CodeUnauthenticated)
	alive(t, conn)
}

func TestSignupRefusals(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "Alice")
	t.Run("name taken, in any case", func(t *testing.T) {
		t.Parallel()
		p := *alice
		_, p.Root, _ = ed25519.GenerateKey(nil)
		p.Certificate = devicecert.Issue(p.Root, ids.New(), ids.New(), p.Device.Public().(ed25519.PublicKey), time.Now())
		if _, err := p.SignupOn(c.Dial(t), "aLICE"); !wire.HasCode(err, wire.CodeAlreadyExists) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("proof of another connection", func(t *testing.T) {
		t.Parallel()
		conn := c.Dial(t)
		conn.Refused(&wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(alice.Conn)}, wire.CodeInvalidProof)
		alive(t, conn)
	})
	t.Run("names that are none", func(t *testing.T) {
		t.Parallel()
		conn := c.Dial(t)
		for _, name := range []string{"", "a b", "\u202eevil", strings.Repeat("x", 65), "tab\t"} {
			conn.Refused(&wire.SignupStartRequest{Name: name, RegistrationRequest: make([]byte, 32)}, wire.CodeInvalidArgument)
		}
		conn.Refused(&wire.SignupStartRequest{Name: "fine", RegistrationRequest: make([]byte, 31)}, wire.CodeInvalidArgument)
	})
}

func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	conn := c.Dial(t)
	for _, x := range []struct{ name, password string }{{"alice", "wrong"}, {"nobody", alice.Password}} {
		if _, err := alice.LoginOn(conn, x.name, x.password); !errors.Is(err, celltest.ErrWrongPassword) {
			t.Fatalf("%s: got %v", x.name, err)
		}
	}
	if _, err := conn.Call(&wire.LoginFinishRequest{KE3: bytes.Repeat([]byte{7}, 64)}); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Fatalf("a KE3 made up: %v", err)
	}
	if _, err := conn.Call(&wire.LoginFinishRequest{KE3: bytes.Repeat([]byte{7}, 64)}); !wire.HasCode(err, wire.CodeUnauthenticated) {
		t.Fatalf("a second KE3 for one KE1: %v", err)
	}
	out, err := alice.LoginOn(conn, "ALICE", alice.Password)
	if err != nil || out.AccountID != alice.Certificate.AccountID || string(out.WrappedRootKey) != "wrapped root key" {
		t.Fatalf("the right password: %+v, %v", out, err)
	}
	t.Run("a device that the root did not sign", func(t *testing.T) {
		_, root, _ := ed25519.GenerateKey(nil)
		ghost := devicecert.Issue(root, alice.Certificate.AccountID, ids.New(), alice.Device.Public().(ed25519.PublicKey), time.Now())
		conn.Refused(&wire.StartSessionRequest{Certificate: ghost.Marshal(), Proof: alice.Proof(conn)}, wire.CodePermissionDenied)
	})
	t.Run("a second device that it did sign", func(t *testing.T) {
		_, device, _ := ed25519.GenerateKey(nil)
		cert := devicecert.Issue(alice.Root, alice.Certificate.AccountID, ids.New(), device.Public().(ed25519.PublicKey), time.Now())
		celltest.Must[*wire.Session](conn, &wire.StartSessionRequest{Certificate: cert.Marshal(), Proof: devicecert.Prove(device, conn.Exporter())})
	})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice := c.Signup(t, "alice")
	conn := c.Dial(t)
	for i := range alice.Session.AccessToken {
		bad := bytes.Clone(alice.Session.AccessToken)
		bad[i] ^= 1
		conn.Refused(&wire.AuthenticateRequest{AccessToken: bad, Proof: alice.Proof(conn)}, wire.CodeInvalidToken)
	}
	refresh := func(token []byte) (wire.Response, error) {
		conn := c.Dial(t)
		return conn.Call(&wire.RefreshSessionRequest{RefreshToken: token, DeviceID: alice.Certificate.DeviceID, Proof: alice.Proof(conn)})
	}
	first := alice.Session.RefreshToken
	body, err := refresh(first)
	if err != nil {
		t.Fatal(err)
	}
	second := body.(*wire.Session).RefreshToken
	if body, err = refresh(first); err != nil { // The answer with the second was lost.
		t.Fatalf("the token before the present one: %v", err)
	}
	third := body.(*wire.Session).RefreshToken
	if body, err = refresh(third); err != nil {
		t.Fatal(err)
	}
	if _, err := refresh(second); !wire.HasCode(err, wire.CodeReusedToken) {
		t.Fatalf("a spent token: %v", err)
	}
	if _, err := refresh(body.(*wire.Session).RefreshToken); !wire.HasCode(err, wire.CodeInvalidToken) {
		t.Fatalf("the family is not revoked: %v", err)
	}
}

func TestKeyPackageRefusals(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.MLS.MaxKeyPackagesPerDevice = 3 }))
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	upload := func(b []byte) *wire.UploadKeyPackagesRequest {
		return &wire.UploadKeyPackagesRequest{OneTime: [][]byte{b}}
	}
	good := alice.KeyPackage()

	wrongSuite := bytes.Clone(good)
	wrongSuite[7] = 2 // MLSMessage: version, wire format; KeyPackage: version, cipher suite.
	alice.Conn.Refused(upload(wrongSuite), wire.CodeUnsupportedSuite)
	alice.Conn.Refused(upload(good[:len(good)-1]), wire.CodeInvalidKeyPackage)
	alice.Conn.Refused(upload(append(bytes.Clone(good), 0)), wire.CodeInvalidKeyPackage)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	alice.Conn.Refused(upload(forged), wire.CodeInvalidKeyPackage)
	alice.Conn.Refused(upload(bob.KeyPackage()), wire.CodeInvalidKeyPackage)
	alice.Conn.Refused(upload(alice.KeyPackage(func(o *mls.KeyPackageOptions) {
		o.NotBefore, o.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})), wire.CodeExpiredKeyPackage)
	alice.Conn.Refused(upload(alice.KeyPackage(func(o *mls.KeyPackageOptions) { o.NotAfter = time.Now().Add(48 * time.Hour) })), wire.CodeInvalidKeyPackage)
	alice.Conn.Refused(upload(alice.KeyPackage(func(o *mls.KeyPackageOptions) { o.LastResort = true })), wire.CodeInvalidKeyPackage)
	alice.Conn.Refused(&wire.UploadKeyPackagesRequest{LastResort: good}, wire.CodeInvalidKeyPackage)

	if s := celltest.Must[*wire.KeyPackageStatus](alice.Conn, upload(good)); s.OneTime != 1 {
		t.Fatalf("%+v", s)
	}
	alice.Conn.Refused(upload(good), wire.CodeReusedKeyPackage)
	bob.Conn.Refused(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: ids.New()}, wire.CodeNotFound)
	claimed := celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID})
	if len(claimed.Packages) != 1 || !bytes.Equal(claimed.Packages[0].KeyPackage, good) {
		t.Fatalf("%+v", claimed)
	}
	alice.Conn.Refused(upload(good), wire.CodeReusedKeyPackage) // Also after it was handed out.
	bob.Conn.Refused(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}, wire.CodeNoKeyPackage)
	alice.Conn.Refused(&wire.UploadKeyPackagesRequest{OneTime: [][]byte{alice.KeyPackage(), alice.KeyPackage(), alice.KeyPackage(), alice.KeyPackage()}}, wire.CodeInvalidArgument)
	if s := celltest.Must[*wire.KeyPackageStatus](alice.Conn, &wire.KeyPackageStatusRequest{}); s.OneTime != 0 {
		t.Fatalf("a refused upload left packages: %+v", s)
	}
}

func TestAKeyPackageIsHandedOutOnce(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	alice.Upload(10)
	celltest.Must[*wire.KeyPackageStatus](alice.Conn, &wire.UploadKeyPackagesRequest{LastResort: alice.KeyPackage(func(o *mls.KeyPackageOptions) { o.LastResort = true })})
	claimers := []*celltest.Person{c.Signup(t, "bob"), c.Signup(t, "carol"), c.Signup(t, "dave")}
	results := make(chan *wire.ClaimKeyPackagesResponse, 15)
	for _, p := range claimers {
		go func() {
			var open []uint64
			for range 5 {
				open = append(open, p.Conn.Send(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}))
			}
			for _, id := range open {
				body, err := p.Conn.Answer(id)
				if err != nil {
					t.Error(err)
					results <- nil
					continue
				}
				results <- body.(*wire.ClaimKeyPackagesResponse)
			}
		}()
	}
	seen, lastResort := map[string]bool{}, 0
	for range 15 {
		r := <-results
		if r == nil {
			continue
		}
		p := r.Packages[0]
		switch {
		case p.LastResort:
			lastResort++
		case seen[string(p.KeyPackage)]:
			t.Error("a one-time KeyPackage was handed out twice")
		default:
			seen[string(p.KeyPackage)] = true
		}
	}
	if len(seen) != 10 || lastResort != 5 {
		t.Errorf("%d one-time, %d last-resort", len(seen), lastResort)
	}
	request := &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}
	alice.Upload(2)
	one := celltest.Must[*wire.ClaimKeyPackagesResponse](claimers[0].Conn, request)
	two := celltest.Must[*wire.ClaimKeyPackagesResponse](claimers[0].Conn, request)
	if !bytes.Equal(one.Packages[0].KeyPackage, two.Packages[0].KeyPackage) {
		t.Error("a retried claim was handed another KeyPackage")
	}
}

func TestForeignChannels(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	eve := c.Signup(t, "eve")
	eve.Conn.Refused(from.Message(t, "let me in"), wire.CodeNotFound)
	eve.Conn.Refused(&wire.CreateGroupRequest{ChannelID: from.Channel, Generation: 2, GroupInfo: []byte{1}}, wire.CodeNotFound)
	subscribe(t, eve)
	caughtUp(t, eve)
	eve.Conn.Refused(&wire.AckRequest{Acks: []wire.Ack{{ChannelID: from.Channel, Seq: 1}}}, wire.CodeInvalidCursor)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "for bob alone"))
	deliveryOf(t, bob)
	if p := eve.Conn.PushWithin(100 * time.Millisecond); p != nil {
		t.Fatalf("eve got %+v", p)
	}
	alice.Conn.Refused(&wire.OpenDMRequest{AccountID: alice.Certificate.AccountID}, wire.CodeInvalidArgument)
	alice.Conn.Refused(&wire.OpenDMRequest{AccountID: ids.New()}, wire.CodeNotFound)
}

func TestEnqueueRefusals(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Limits.MaxPayloadBytes = 16 << 10 }))
	alice, bob, from, _ := pair(t, c)
	request := func(change func(*wire.EnqueueRequest)) *wire.EnqueueRequest {
		r := from.Message(t, "text")
		change(r)
		return r
	}
	other := from.Message(t, "another")
	for _, x := range []struct {
		name   string
		code   wire.Code
		change func(*wire.EnqueueRequest)
	}{
		{"not MLS", wire.CodeInvalidMessage, func(r *wire.EnqueueRequest) { r.Payload = []byte("hello") }},
		{"a KeyPackage", wire.CodeInvalidMessage, func(r *wire.EnqueueRequest) { r.Payload = alice.KeyPackage() }},
		{"not the id inside", wire.CodeInvalidMessage, func(r *wire.EnqueueRequest) { r.DeliveryID = other.DeliveryID }},
		{"another generation", wire.CodeEpochConflict, func(r *wire.EnqueueRequest) { r.Generation = 2 }},
		{"another channel", wire.CodeInvalidMessage, func(r *wire.EnqueueRequest) { r.ChannelID = bob.Certificate.DeviceID }},
		{"not a UUIDv7", wire.CodeInvalidArgument, func(r *wire.EnqueueRequest) { r.DeliveryID = ids.ID{1} }},
		{"too old an id", wire.CodeDeliveryIDOutOfWindow, func(r *wire.EnqueueRequest) { r.DeliveryID = ids.NewDelivery(time.Now().Add(-15 * 24 * time.Hour)) }},
		{"an id of the future", wire.CodeDeliveryIDOutOfWindow, func(r *wire.EnqueueRequest) { r.DeliveryID = ids.NewDelivery(time.Now().Add(time.Hour)) }},
		{"too large", wire.CodePayloadTooLarge, func(r *wire.EnqueueRequest) { r.Payload = make([]byte, 17<<10) }},
	} {
		t.Run(x.name, func(t *testing.T) { alice.Conn.Refused(request(x.change), x.code) })
	}
	celltest.Must[*wire.EnqueueResponse](alice.Conn, other)
	id := other.DeliveryID
	payload, err := from.Group.Encrypt([]byte("other content"), id[:], 256)
	if err != nil {
		t.Fatal(err)
	}
	alice.Conn.Refused(&wire.EnqueueRequest{ChannelID: from.Channel, Generation: 1, DeliveryID: id, Payload: payload}, wire.CodeDeliveryIDReused)
	if d := deliveryOf(t, bob); d.Seq != 1 {
		t.Fatalf("%+v", d)
	}
	bob.Conn.Refused(&wire.AckRequest{Acks: []wire.Ack{{ChannelID: from.Channel, Seq: 2}}}, wire.CodeInvalidCursor)
}

func TestTheFirstCreatorOfAGroupWins(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	alice.Upload(2)
	bob.Upload(2)
	one, two := alice.Open(bob), bob.Open(alice)
	if one.Channel != two.Channel {
		t.Fatal("the pair has two channels")
	}
	won := celltest.Must[*wire.CreateGroupResponse](alice.Conn, one.Request)
	again := celltest.Must[*wire.CreateGroupResponse](alice.Conn, one.Request) // Its answer was lost.
	if *won != *again {
		t.Fatalf("%+v, then %+v", won, again)
	}
	bob.Conn.Refused(two.Request, wire.CodeGenerationConflict)
	subscribe(t, bob)
	bob.Join(deliveryOf(t, bob))
	caughtUp(t, bob) // One Welcome, not two.
}

func TestGroupsThatDoNotFitTheirChannel(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	bob.Upload(4)
	eve.Upload(2)
	dm := alice.Open(bob)
	change := func(f func(*wire.CreateGroupRequest)) *wire.CreateGroupRequest {
		r := *dm.Request
		f(&r)
		return &r
	}
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) { r.Generation = 2 }), wire.CodeEpochConflict)
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) { r.Welcomes = nil }), wire.CodeInvalidArgument)
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) { r.GroupInfo = r.Welcomes[0].Welcome }), wire.CodeInvalidMessage)
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) {
		r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: eve.Certificate.DeviceID, Welcome: r.Welcomes[0].Welcome})
	}), wire.CodeInvalidArgument)
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) {
		r.GroupInfo = bytes.Clone(r.GroupInfo)
		r.GroupInfo[len(r.GroupInfo)-1] ^= 1
	}), wire.CodeInvalidMessage)
	foreign := alice.Open(eve) // A group with eve, offered for the channel with bob.
	alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) { r.GroupInfo = foreign.Request.GroupInfo }), wire.CodeInvalidMessage)
	later := *dm.Group
	pending, err := later.Commit(mls.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	refused := alice.Conn.Refused(change(func(r *wire.CreateGroupRequest) { r.GroupInfo = pending.GroupInfo }), wire.CodeInvalidMessage)
	if !strings.Contains(refused.Message, "epoch 2") {
		t.Errorf("a group of two Commits: %v", refused)
	}
	celltest.Must[*wire.CreateGroupResponse](alice.Conn, dm.Request)
}

func TestAnImpostorsTLSIsRefused(t *testing.T) {
	t.Parallel()
	c, other := celltest.New(t), celltest.New(t)
	other.Addr = c.Addr // Trusts another CA.
	if err := other.DialError(t); err == nil || !strings.Contains(err.Error(), "x509") && !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("got %v", err)
	}
	alive(t, c.Dial(t))
}
