package client

import (
	"context"
	"slices"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Device is one of the account's.
type Device struct {
	ID      ids.ID
	Name    string
	AddedAt time.Time
	// SeenOn is the day on which it was last seen; zero: never.
	SeenOn time.Time
	// This is the profile's own device.
	This bool
	// Certified: the account's root key vouches for it. One that is not is none of the account's people's, whatever the cell
	// says, and no client writes to it.
	Certified bool
}

// Devices returns the devices of the account that are in use, in the order of their addition.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	var list []Device
	err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
		list, err = c.devices(ctx, s)
		return err
	})
	return list, err
}

// devices asks for the devices, and remembers what they are called.
func (c *Client) devices(ctx context.Context, via caller) ([]Device, error) {
	r, err := ask[*wire.DeviceList](ctx, via, &wire.ListDevicesRequest{})
	if err != nil {
		return nil, err
	}
	list := make([]Device, len(r.Devices))
	for i, d := range r.Devices {
		list[i] = Device{ID: d.DeviceID, Name: d.Name, AddedAt: d.AddedAt, SeenOn: d.LastSeenAt, This: d.DeviceID == c.self.DeviceID, Certified: c.certifies(d)}
	}
	return list, update(ctx, c.store, devicesName, func(rec *devicesRecord) (bool, error) { return rec.see(list), nil })
}

// certifies reports whether the account's root key vouches for what the cell says of a device.
func (c *Client) certifies(d wire.Device) bool {
	cert, err := devicecert.Parse(d.Certificate)
	return err == nil && cert.AccountID == c.self.AccountID && cert.DeviceID == d.DeviceID && string(cert.RootKey) == string(c.self.RootKey)
}

// RenameDevice gives a device of the account another name, of at most 128 bytes. Errors: *wire.Error (notFound,
// invalidArgument), and the usual ones.
func (c *Client) RenameDevice(ctx context.Context, device ids.ID, name string) error {
	return c.do(ctx, func(ctx context.Context, s *session) error {
		_, err := ask[*wire.Done](ctx, s, &wire.RenameDeviceRequest{DeviceID: device, Name: name})
		return err
	})
}

// RevokeDevice ends a device of the account for good: everywhere, its connections end within seconds, and nothing more is
// sent to it. What it has received it may still show. For another device than this one the passphrase is proven. Errors:
// *wire.Error (notFound), ErrPasswordChanged, and the usual ones.
func (c *Client) RevokeDevice(ctx context.Context, device ids.ID) error {
	return c.do(ctx, func(ctx context.Context, s *session) error {
		if device != c.self.DeviceID {
			root, err := c.proveOwn(ctx, s)
			if err != nil {
				return err
			}
			clear(root)
		}
		_, err := conn.Call[*wire.Done](ctx, s.Conn, &wire.RevokeDeviceRequest{DeviceID: device})
		return err
	})
}

// devicesRecord is what is known of the account's devices, and of those that were revoked.
type devicesRecord struct {
	Names   map[ids.ID]string
	Revoked []ids.ID `json:",omitempty"` // The latest last.
}

// see notes what devices are called.
func (r *devicesRecord) see(list []Device) (changed bool) {
	if r.Names == nil {
		r.Names = make(map[ids.ID]string)
	}
	for _, d := range list {
		if r.Names[d.ID] != d.Name {
			r.Names[d.ID], changed = d.Name, true
		}
	}
	return changed
}

// maxRevoked is how many revoked devices of one account are remembered: as many as it may have in use.
const maxRevoked = wire.MaxDevices

// addRevoked adds a device to a list of those that were revoked.
func addRevoked(list []ids.ID, device ids.ID) []ids.ID {
	if slices.Contains(list, device) {
		return list
	}
	list = append(list, device)
	return list[max(0, len(list)-maxRevoked):]
}

// revokedOf returns the devices of an account of which this profile was told that they were revoked.
func (c *Client) revokedOf(ctx context.Context, account ids.ID) (list []ids.ID, err error) {
	err = c.store.View(ctx, func(tx *keystore.Tx) error {
		if c.own(account) {
			rec, _, err := load[devicesRecord](tx, devicesName)
			if err == nil {
				list = rec.Revoked
			}
			return err
		}
		rec, _, err := load[contactsRecord](tx, contactsName)
		if err == nil {
			list = rec.Accounts[account].Revoked
		}
		return err
	})
	return list, err
}
