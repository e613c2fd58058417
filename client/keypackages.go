package client

import (
	"context"
	"fmt"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/wire"
)

const (
	// oneTimeTarget KeyPackages are kept with the cell, and made again when fewer than oneTimeLow are left.
	oneTimeTarget = 20
	oneTimeLow    = 10
	// backdate lets a KeyPackage begin a little before it is made, for peers whose clock is late.
	backdate = 5 * time.Minute
	// keepExpired is how long private keys outlive their KeyPackage: a Welcome may have been made at its last moment
	// and waited in the inbox since.
	keepExpired = 60 * 24 * time.Hour
)

// fillKeyPackages uploads KeyPackages where too few are left, and renews the last-resort one in the last quarter of
// its life. The private halves are saved first.
func (c *Client) fillKeyPackages(ctx context.Context, s *session) error {
	unlock, err := c.store.Lock(ctx, keyPackagesName)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := ask[*wire.KeyPackageStatus](ctx, s, &wire.KeyPackageStatusRequest{})
	if err != nil {
		return err
	}
	bundles, req, err := c.makeKeyPackages(s, status)
	if err != nil || len(bundles) == 0 {
		return err
	}
	if err := c.keepBundles(ctx, s, bundles); err != nil {
		return err
	}
	_, err = ask[*wire.KeyPackageStatus](ctx, s, req)
	return err
}

// makeKeyPackages makes what status says is missing.
func (c *Client) makeKeyPackages(s *session, status *wire.KeyPackageStatus) ([]bundleRecord, *wire.UploadKeyPackagesRequest, error) {
	hello, now := s.Hello(), c.serverNow(s)
	req := &wire.UploadKeyPackagesRequest{}
	var bundles []bundleRecord
	add := func(lifetime time.Duration, lastResort bool) ([]byte, error) {
		message, bundle, err := c.makeKeyPackage(now, lifetime, lastResort)
		bundles = append(bundles, bundle)
		return message, err
	}
	target := min(oneTimeTarget, int(hello.MaxKeyPackages))
	if have := int(status.OneTime); have < min(oneTimeLow, target) {
		for range target - have {
			b, err := add(hello.KeyPackageLifetime, false)
			if err != nil {
				return nil, nil, err
			}
			req.OneTime = append(req.OneTime, b)
		}
	}
	if status.LastResortExpiresAt.Before(now.Add(hello.LastResortLifetime / 4)) {
		b, err := add(hello.LastResortLifetime, true)
		if err != nil {
			return nil, nil, err
		}
		req.LastResort = b
	}
	return bundles, req, nil
}

func (c *Client) makeKeyPackage(now time.Time, lifetime time.Duration, lastResort bool) (message []byte, r bundleRecord, err error) {
	notAfter := now.Add(lifetime)
	bundle, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: c.credential(), Signer: c.device,
		NotBefore: now.Add(-backdate), NotAfter: notAfter, LastResort: lastResort})
	if err != nil {
		return nil, r, fmt.Errorf("making a KeyPackage: %w", err)
	}
	if message, err = bundle.KeyPackage().MarshalMessage(); err != nil {
		return nil, r, fmt.Errorf("making a KeyPackage: %w", err)
	}
	secret, err := bundle.MarshalBinary()
	if err != nil {
		return nil, r, fmt.Errorf("making a KeyPackage: %w", err)
	}
	ref := bundle.KeyPackage().Ref()
	return message, bundleRecord{Ref: ref[:], Bundle: secret, NotAfter: notAfter, LastResort: lastResort}, nil
}

// keepBundles saves new private halves and drops those whose time is long over.
func (c *Client) keepBundles(ctx context.Context, s *session, fresh []bundleRecord) error {
	horizon := c.serverNow(s).Add(-keepExpired)
	return update(ctx, c.store, keyPackagesName, func(r *keyPackagesRecord) (bool, error) {
		kept := r.Bundles[:0]
		for _, b := range r.Bundles {
			if b.NotAfter.After(horizon) {
				kept = append(kept, b)
			}
		}
		r.Bundles = append(kept, fresh...)
		return true, nil
	})
}

// bundleFor finds the private half that a Welcome is for; nil when there is none.
func (c *Client) bundleFor(ctx context.Context, w *mls.Welcome) (*mls.KeyPackageBundle, *bundleRecord, error) {
	r, _, err := get[keyPackagesRecord](ctx, c.store, keyPackagesName)
	if err != nil {
		return nil, nil, err
	}
	for i := range r.Bundles {
		if b := &r.Bundles[i]; len(b.Ref) == len(mls.KeyPackageRef{}) && w.Includes(mls.KeyPackageRef(b.Ref)) {
			bundle, err := mls.UnmarshalKeyPackageBundle(b.Bundle)
			return bundle, b, err
		}
	}
	return nil, nil, nil
}

// spend destroys the private half of a one-time KeyPackage whose Welcome was joined.
func (c *Client) spend(ctx context.Context, spent *bundleRecord) error {
	if spent == nil || spent.LastResort {
		return nil
	}
	return update(ctx, c.store, keyPackagesName, func(r *keyPackagesRecord) (bool, error) {
		for i := range r.Bundles {
			if string(r.Bundles[i].Ref) == string(spent.Ref) {
				r.Bundles = append(r.Bundles[:i], r.Bundles[i+1:]...)
				return true, nil
			}
		}
		return false, nil
	})
}
