package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"github.com/bytemare/opaque"

	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/opaqueconf"
)

// opaqueKeys are the cell's OPAQUE servers. The first registers; each answers for the passwords registered under it.
type opaqueKeys struct {
	ids     []uint32
	servers map[uint32]*opaque.Server
	hide    []byte // Keys the choice of a server for names that nobody has.
}

func newOPAQUEKeys(k *cellkeys.Keys) (*opaqueKeys, error) {
	o := &opaqueKeys{servers: map[uint32]*opaque.Server{}, hide: k.NameIndex}
	for _, set := range slices.Concat([]cellkeys.OPAQUE{k.OPAQUE}, k.PreviousOPAQUE) {
		server, err := set.Server()
		if err != nil {
			return nil, err
		}
		o.ids = append(o.ids, set.KeyID())
		o.servers[set.KeyID()] = server
	}
	return o, nil
}

func (o *opaqueKeys) present() (uint32, *opaque.Server) { return o.ids[0], o.servers[o.ids[0]] }

// registered is the key that a client says it has registered under: 0 from clients older than rotation.
func (o *opaqueKeys) registered(id uint32) (uint32, bool) {
	if id == 0 {
		id = o.ids[0]
	}
	_, ok := o.servers[id]
	return id, ok
}

// ofNobody is the key for a name that nobody has: always the same one of those there are, so that a rotation does not
// tell names that exist, which move one by one, from names that do not.
func (o *opaqueKeys) ofNobody(name string) *opaque.Server {
	m := hmac.New(sha256.New, o.hide)
	m.Write([]byte("qpq/1 OPAQUE key of nobody\x00" + name))
	return o.servers[o.ids[int(m.Sum(nil)[0])%len(o.ids)]]
}

// fakeRecord is a registration that no password fits (RFC 9807 §10.9), serialized like a real one. One serves all names:
// what a client sees of it is masked anew each time.
func fakeRecord() ([]byte, error) {
	fake, err := opaqueconf.Configuration().GetFakeRecord(nil)
	if err != nil {
		return nil, err
	}
	return fake.RegistrationRecord.Serialize(), nil
}
