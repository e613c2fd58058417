// Package cellkeys is the file of a cell's own secrets: OPAQUE keys, token keys, sealing keys, audit keys. The operator (or the
// development mode) generates it once, the cell reads it, every backup holds it: without it no password can be
// checked and no sealed column opened. Nothing here is ever logged.
package cellkeys

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/bytemare/opaque"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/schema/opaqueconf"
)

// Version is the only version of the file there is.
const Version = "quicproquo.dev/keys/v1"

const keySize = 32

// Keys is the file's content. Byte fields are base64 in YAML.
type Keys struct {
	Version string `json:"version"`
	// OPAQUE keys are bound into every registration: they do not rotate by replacement. The present ones register; the
	// previous ones let those log in who registered under them, and who then register anew.
	OPAQUE         OPAQUE   `json:"opaque"`
	PreviousOPAQUE []OPAQUE `json:"previousOPAQUE,omitempty"`
	// Tokens sign access tokens: the first signs, all verify.
	Tokens []Key `json:"tokens"`
	// Sealing keys encrypt columns: the first seals, all open.
	Sealing []Key `json:"sealing"`
	// NameIndex keys the hashes by which names are found.
	NameIndex []byte `json:"nameIndex"`
	// Audit keys sign the audit log's checkpoints: the first signs, all verify. Left out, and behind those that are there,
	// is one that follows from NameIndex: the file of a new cell can be read by releases that kept no audit log, and
	// what was signed before the first rotation still verifies.
	Audit []Key `json:"audit,omitempty"`
}

// OPAQUE holds the server's long-term OPAQUE keys (RFC 9807 §3).
type OPAQUE struct {
	// ID is kept with each registration. Left out, it is 1.
	ID            uint32 `json:"id,omitempty"`
	OPRFSeed      []byte `json:"oprfSeed"`
	AKEPrivateKey []byte `json:"akePrivateKey"`
	AKEPublicKey  []byte `json:"akePublicKey"`
}

// KeyID is ID, with its default.
func (o OPAQUE) KeyID() uint32 { return max(o.ID, 1) }

// Key is one 32-byte key with the id that what it made carries.
type Key struct {
	ID  uint32 `json:"id"`
	Key []byte `json:"key"`
}

const redacted = "(secret)"

// Format implements fmt.Formatter: nothing is printed, whatever the verb.
func (*Keys) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements slog.LogValuer: nothing is logged.
func (*Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format implements fmt.Formatter: nothing is printed, whatever the verb.
func (OPAQUE) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements slog.LogValuer: nothing is logged.
func (OPAQUE) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format implements fmt.Formatter: only the id is printed, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "key %d %s", k.ID, redacted) }

// LogValue implements slog.LogValuer: only the id is logged.
func (k Key) LogValue() slog.Value { return slog.Uint64Value(uint64(k.ID)) }

// Generate makes fresh keys.
func Generate() *Keys {
	return &Keys{
		Version:   Version,
		OPAQUE:    generateOPAQUE(0),
		Tokens:    []Key{{1, random()}},
		Sealing:   []Key{{1, random()}},
		NameIndex: random(),
	}
}

func generateOPAQUE(id uint32) OPAQUE {
	conf := opaqueconf.Configuration()
	private, public := conf.KeyGen()
	return OPAQUE{id, conf.GenerateOPRFSeed(), private.Encode(), public.Encode()}
}

// RotateOPAQUE makes new OPAQUE keys the present ones and keeps those so far, so that everybody can still log in, and
// registers anew when doing so. Keys that are dropped from PreviousOPAQUE lock out who has not logged in meanwhile: they
// are left with their recovery codes.
func (k *Keys) RotateOPAQUE() {
	newest := k.OPAQUE.KeyID()
	for _, o := range k.PreviousOPAQUE {
		newest = max(newest, o.KeyID())
	}
	k.PreviousOPAQUE = append([]OPAQUE{k.OPAQUE}, k.PreviousOPAQUE...)
	k.OPAQUE = generateOPAQUE(newest + 1)
}

// RotateAudit makes a fresh key sign the audit log's checkpoints. The keys so far stay: what they signed is verified with them.
func (k *Keys) RotateAudit() {
	newest := uint32(0)
	for _, a := range k.Audit {
		newest = max(newest, a.ID)
	}
	k.Audit = append([]Key{{newest + 1, random()}}, k.Audit...)
}

// AuditSeeds returns the audit log's keys, the one that signs first, each of 32 bytes.
func (k *Keys) AuditSeeds() ([][]byte, error) {
	var seeds [][]byte
	for _, a := range k.Audit {
		seeds = append(seeds, a.Key)
	}
	derived, err := hkdf.Key(sha256.New, k.NameIndex, []byte("qpq/1 keys file"), "audit", keySize)
	return append(seeds, derived), err
}

func random() []byte {
	b := make([]byte, keySize)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails.
	return b
}

// Marshal returns the file's bytes: a secret.
func (k *Keys) Marshal() ([]byte, error) { return yaml.Marshal(k) }

// Parse reads a file's bytes. Errors name the field, never its content.
func Parse(b []byte) (*Keys, error) {
	var k Keys
	if err := yaml.UnmarshalStrict(b, &k); err != nil {
		return nil, errors.New("the keys file is not YAML with the fields of " + Version + "; restore it from a backup") // err may quote a key.
	}
	if k.Version != Version {
		return nil, fmt.Errorf("the keys file's version must be %q", Version)
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	return &k, nil
}

// Load reads and parses a file.
func Load(path string) (*Keys, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keys file: %w", err)
	}
	defer clear(b)
	return Parse(b)
}

func (k *Keys) check() error {
	if len(k.NameIndex) != keySize {
		return fmt.Errorf("nameIndex must have %d bytes", keySize)
	}
	if err := errors.Join(checkSet("tokens", k.Tokens), checkSet("sealing", k.Sealing)); err != nil {
		return err
	}
	if len(k.Audit) > 0 {
		if err := checkSet("audit", k.Audit); err != nil {
			return err
		}
	}
	return k.checkOPAQUE()
}

// checkOPAQUE finds bad keys here, not at the first login.
func (k *Keys) checkOPAQUE() error {
	seen := map[uint32]bool{}
	for _, o := range append([]OPAQUE{k.OPAQUE}, k.PreviousOPAQUE...) {
		if seen[o.KeyID()] {
			return fmt.Errorf("previousOPAQUE: two sets of OPAQUE keys have the id %d", o.KeyID())
		}
		seen[o.KeyID()] = true
		if _, err := o.Server(); err != nil {
			return err
		}
	}
	return nil
}

func checkSet(name string, set []Key) error {
	if len(set) == 0 {
		return fmt.Errorf("%s must have at least one key", name)
	}
	seen := map[uint32]bool{}
	for _, key := range set {
		if len(key.Key) != keySize || seen[key.ID] {
			return fmt.Errorf("%s: key %d must have %d bytes and an id of its own", name, key.ID, keySize)
		}
		seen[key.ID] = true
	}
	return nil
}

func (o OPAQUE) material() (*opaque.ServerKeyMaterial, error) {
	conf := opaqueconf.Configuration()
	d, err := conf.Deserializer()
	if err != nil {
		return nil, err
	}
	private, err := d.DecodePrivateKey(o.AKEPrivateKey)
	if err != nil {
		return nil, errors.New("opaque.akePrivateKey is not a ristretto255 scalar")
	}
	if len(o.OPRFSeed) != conf.Hash.Size() {
		return nil, fmt.Errorf("opaque.oprfSeed must have %d bytes", conf.Hash.Size())
	}
	return &opaque.ServerKeyMaterial{PrivateKey: private, PublicKeyBytes: o.AKEPublicKey, OPRFGlobalSeed: o.OPRFSeed}, nil
}

// Server returns an OPAQUE server with these keys.
func (o OPAQUE) Server() (*opaque.Server, error) {
	material, err := o.material()
	if err != nil {
		return nil, err
	}
	s, err := opaqueconf.Configuration().Server()
	if err != nil {
		return nil, err
	}
	if err := s.SetKeyMaterial(material); err != nil {
		return nil, errors.New("the OPAQUE keys do not belong together")
	}
	return s, nil
}
