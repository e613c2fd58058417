package client

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
)

// The profile's records. A channel's is named channelPrefix and the channel's id; the inbox is the channel with the
// device's id.
const (
	accountName     = "account"
	sessionName     = "session"
	contactsName    = "contacts"
	keyPackagesName = "keypackages"
	devicesName     = "devices"
	channelPrefix   = "channel-"
)

// accountRecord is who this profile is.
type accountRecord struct {
	Name        string
	AccountID   ids.ID
	DeviceID    ids.ID
	DeviceSeed  []byte // Ed25519.
	Certificate []byte
	RootKey     []byte // The public half.
	Cell        cellRecord
	// Pending: saved before the cell was told, so it may not know the account or the device.
	Pending bool
	// LoggedOut: the device's session was ended on purpose; it begins again with a login.
	LoggedOut bool `json:",omitempty"`
	// Deleting: the cell was asked to delete the account, and has not answered yet. Deleted: it has, and this profile is on
	// its way out too.
	Deleting, Deleted bool `json:",omitempty"`
	// StartedOver: the account was reset by this device, so that groups from before are of no use to it.
	StartedOver bool `json:",omitempty"`
}

type cellRecord struct {
	Endpoint string
	CA       []byte `json:",omitempty"`
	Pin      string `json:",omitempty"`
	ID       ids.ID
}

func (a *accountRecord) deviceKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(a.DeviceSeed) }

// sessionRecord holds the device's tokens.
type sessionRecord struct {
	AccessToken, RefreshToken         []byte
	AccessExpiresAt, RefreshExpiresAt time.Time
}

// contactsRecord is every account seen so far, by id.
type contactsRecord struct {
	Accounts map[ids.ID]contact
}

type contact struct {
	Name    string
	RootKey []byte // The one that is trusted.
	// NewRootKey is another one under which the account has appeared, and which nobody has accepted.
	NewRootKey []byte    `json:",omitempty"`
	CheckedAt  time.Time `json:",omitzero"`  // When the cell was last asked for it.
	Former     bool      `json:",omitempty"` // The account was deleted, and its name is another's, who is trusted under it.
	Revoked    []ids.ID  `json:",omitempty"` // Devices of which the cell has said that they were revoked. The latest last.
}

// keyPackagesRecord holds the private halves of uploaded KeyPackages.
type keyPackagesRecord struct {
	Bundles []bundleRecord
}

type bundleRecord struct {
	Ref        []byte
	Bundle     []byte
	NotAfter   time.Time
	LastResort bool
}

// channelRecord is all of one channel: what belongs together is written together.
type channelRecord struct {
	ChannelID    ids.ID
	Peer         peer
	Groups       []groupRecord // The newest last.
	LastSeq      uint64        // Handled up to here.
	RestoreEpoch uint64        // That LastSeq is of.
	SeenBelow    uint64        // Handled before the cell was restored.
	Unread       []line        // Not yet shown, in order.
	Outbox       []outgoing    // Not yet answered, in order.
	Waiting      []waitingText `json:",omitempty"` // For the peer to accept to be written to, in order.
	Creation     *creation     // A group that the cell has not accepted yet.
	// Superseded: the peer's root key changed and was accepted when the channel was at this generation, or a revoked device is in
	// its group; a later one begins.
	Superseded uint32 `json:",omitempty"`
}

type peer struct {
	AccountID ids.ID
	Name      string
}

// groupRecord is the MLS group of one generation.
type groupRecord struct {
	Generation uint32
	State      []byte
}

// line is one message to show, or what became of one that cannot be shown.
type line struct {
	Seq                uint64
	DeliveryID         ids.ID
	Account, Device    ids.ID
	From               string
	SentAt, AcceptedAt time.Time
	Text               string
	Failure            *failure   `json:",omitempty"`
	Notice             NoticeKind `json:",omitempty"` // It is no message, but this.
	DeviceName         string     `json:",omitempty"` // Of a notice's device.
}

type failure struct{ Code, Message string }

// outgoing is one encrypted message.
type outgoing struct {
	DeliveryID ids.ID
	Generation uint32
	Payload    []byte
	Text       string // To show in case it cannot be sent.
	waited     ids.ID // Of the waiting text that it is made of, which it replaces; not saved.
}

// creation is a new generation's group as its creator keeps it until the cell has accepted it.
type creation struct {
	Generation uint32
	State      []byte
	GroupInfo  []byte
	Welcome    []byte
	Devices    []ids.ID
	CreatedAt  time.Time
}

func channelName(id ids.ID) string { return channelPrefix + id.String() }

// load reads a record. ok is false when there is none.
func load[T any](tx *keystore.Tx, name string) (v *T, ok bool, err error) {
	v = new(T)
	b, err := tx.Get(name)
	if errors.Is(err, keystore.ErrNotFound) {
		return v, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer clear(b)
	if err := json.Unmarshal(b, v); err != nil {
		return nil, false, fmt.Errorf("the profile's record %s is from another version of this program: %w", name, err)
	}
	return v, true, nil
}

func save(tx *keystore.Tx, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the profile's record %s: %w", name, err)
	}
	defer clear(b)
	return tx.Put(name, b)
}

// get reads one record by itself.
func get[T any](ctx context.Context, s *keystore.Store, name string) (v *T, ok bool, err error) {
	err = s.View(ctx, func(tx *keystore.Tx) error {
		v, ok, err = load[T](tx, name)
		return err
	})
	return v, ok, err
}

// update changes one record in one step. When change returns false or an error, nothing is written.
func update[T any](ctx context.Context, s *keystore.Store, name string, change func(*T) (bool, error)) error {
	return s.Update(ctx, func(tx *keystore.Tx) error {
		v, _, err := load[T](tx, name)
		if err != nil {
			return err
		}
		if changed, err := change(v); err != nil || !changed {
			return err
		}
		return save(tx, name, v)
	})
}
