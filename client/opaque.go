package client

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"

	"github.com/bytemare/opaque"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// register does an OPAQUE registration (RFC 9807 §5) up to the record that signupFinish carries.
func register(ctx context.Context, cn *conn.Conn, name string, password []byte) (record, exportKey []byte, err error) {
	c, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE: %w", err)
	}
	request, err := c.RegistrationInit(slices.Clone(password))
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE registration: %w", err)
	}
	answer, err := conn.Call[*wire.SignupStartResponse](ctx, cn, &wire.SignupStartRequest{Name: name, RegistrationRequest: request.Serialize()})
	if err != nil {
		return nil, nil, err
	}
	response, err := c.Deserialize.RegistrationResponse(answer.RegistrationResponse)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: OPAQUE registration: %w", conn.ErrProtocol, err)
	}
	r, exportKey, err := c.RegistrationFinalize(response, nil, nil, opaqueconf.ClientOptions())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: OPAQUE registration: %w", conn.ErrProtocol, err)
	}
	return r.Serialize(), exportKey, nil
}

// login does an OPAQUE login (RFC 9807 §6). A wrong password and an unknown name are both invalidCredentials.
func login(ctx context.Context, cn *conn.Conn, name string, password []byte) (*wire.LoginFinishResponse, []byte, error) {
	c, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE: %w", err)
	}
	ke1, err := c.GenerateKE1(slices.Clone(password))
	if err != nil {
		return nil, nil, fmt.Errorf("OPAQUE login: %w", err)
	}
	answer, err := conn.Call[*wire.LoginStartResponse](ctx, cn, &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()})
	if err != nil {
		return nil, nil, err
	}
	ke3, exportKey, err := finishLogin(c, answer.KE2)
	if err != nil {
		return nil, nil, err
	}
	finish, err := conn.Call[*wire.LoginFinishResponse](ctx, cn, &wire.LoginFinishRequest{KE3: ke3})
	return finish, exportKey, err
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
	return aead.Seal(b, b[1:], root.Seed(), append(b[:1:1], account[:]...)), nil
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
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errWrapped
	}
	defer clear(seed)
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
