package client

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/bytemare/opaque"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// registration is a password as it is registered, and what comes of it.
type registration struct {
	record    []byte
	opaqueKey uint32
	exportKey []byte
}

// register does an OPAQUE registration (RFC 9807 §5) up to the record. start makes the request that carries the message.
func register(ctx context.Context, cn *conn.Conn, password []byte, start func(message []byte) wire.Request) (*registration, error) {
	c, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, fmt.Errorf("OPAQUE: %w", err)
	}
	defer c.ClearState()
	request, err := c.RegistrationInit(password) // It keeps a copy, which ClearState zeroes.
	if err != nil {
		return nil, fmt.Errorf("OPAQUE registration: %w", err)
	}
	answer, err := conn.Call[*wire.SignupStartResponse](ctx, cn, start(request.Serialize()))
	if err != nil {
		return nil, err
	}
	response, err := c.Deserialize.RegistrationResponse(answer.RegistrationResponse)
	if err != nil {
		return nil, fmt.Errorf("%w: OPAQUE registration: %w", conn.ErrProtocol, err)
	}
	r, exportKey, err := c.RegistrationFinalize(response, nil, nil, opaqueconf.ClientOptions())
	if err != nil {
		return nil, fmt.Errorf("%w: OPAQUE registration: %w", conn.ErrProtocol, err)
	}
	return &registration{r.Serialize(), answer.OpaqueKey, exportKey}, nil
}

// setPasswordStart is register's start for an account that the connection has proven.
func setPasswordStart(message []byte) wire.Request {
	return &wire.SetPasswordStartRequest{RegistrationRequest: message}
}

// login does an OPAQUE login (RFC 9807 §6). A wrong password and an unknown name are both invalidCredentials. self, which
// may be nil, is the device that asks, if the account has it already. The caller clears the export key.
func login(ctx context.Context, s *session, name string, password []byte, self *accountRecord) (*wire.LoginFinishResponse, []byte, error) {
	c, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE: %w", err)
	}
	defer c.ClearState()
	ke1, err := c.GenerateKE1(password) // It keeps a copy, which ClearState zeroes.
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE login: %w", err)
	}
	start := &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()}
	if self != nil {
		start.DeviceID = self.DeviceID
		if start.Proof, err = s.Prove(self.deviceKey()); err != nil {
			return nil, nil, err
		}
	}
	answer, err := conn.Call[*wire.LoginStartResponse](ctx, s.Conn, start)
	if err != nil {
		return nil, nil, err
	}
	ke3, exportKey, err := finishLogin(c, answer.KE2)
	if err != nil {
		return nil, nil, err
	}
	finish, err := conn.Call[*wire.LoginFinishResponse](ctx, s.Conn, &wire.LoginFinishRequest{KE3: ke3})
	if err != nil {
		clear(exportKey)
		return nil, nil, err
	}
	return finish, exportKey, nil
}

// finishLogin checks KE2. A wrong password shows here already, before the cell can tell.
func finishLogin(c *opaque.Client, b []byte) (ke3, exportKey []byte, err error) {
	ke2, err := c.Deserialize.KE2(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: OPAQUE login: %w", conn.ErrProtocol, err)
	}
	m, _, exportKey, err := c.GenerateKE3(ke2, nil, nil, opaqueconf.ClientOptions())
	if err != nil {
		return nil, nil, wire.Errorf(wire.CodeInvalidCredentials, "unknown name or wrong password")
	}
	return m.Serialize(), exportKey, nil
}

// A wrapped root key: a version byte, a nonce of 12 bytes, and the root key's seed under AES-256-GCM with the key
// HKDF-SHA512(export key, no salt, wrapInfo). The version and the account id are authenticated with it.
const (
	wrapInfo    = "qpq/1 root key"
	wrapVersion = 1
	wrapNonce   = 12
)

var errWrapped = errors.New("the account's root key, as the cell keeps it, does not open: the cell's data is damaged or was tampered with")

func wrapRoot(root ed25519.PrivateKey, exportKey []byte, account ids.ID) ([]byte, error) {
	aead, err := wrapAEAD(exportKey)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 1+wrapNonce, 1+wrapNonce+ed25519.SeedSize+aead.Overhead())
	b[0] = wrapVersion
	rand.Read(b[1:]) //nolint:errcheck // crypto/rand.Read never fails.
	seed := root.Seed()
	defer clear(seed)
	return aead.Seal(b, b[1:], seed, append(b[:1:1], account[:]...)), nil
}

// unwrapLogin opens the root key that a login handed back, and checks that it is the account's.
func unwrapLogin(f *wire.LoginFinishResponse, exportKey []byte) (ed25519.PrivateKey, error) {
	root, err := unwrapRoot(f.WrappedRootKey, exportKey, f.AccountID)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(root.Public().(ed25519.PublicKey), f.RootKey) { //nolint:forcetypeassert // always is.
		clear(root)
		return nil, errWrapped
	}
	return root, nil
}

func unwrapRoot(b, exportKey []byte, account ids.ID) (ed25519.PrivateKey, error) {
	aead, err := wrapAEAD(exportKey)
	if err != nil {
		return nil, err
	}
	if len(b) < 1+wrapNonce || b[0] != wrapVersion {
		return nil, errWrapped
	}
	seed, err := aead.Open(nil, b[1:1+wrapNonce], b[1+wrapNonce:], append(b[:1:1], account[:]...))
	defer clear(seed)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errWrapped
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func wrapAEAD(exportKey []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha512.New, exportKey, nil, wrapInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("wrapping the root key: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("wrapping the root key: %w", err)
	}
	return cipher.NewGCM(block)
}
