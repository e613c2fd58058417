// Package keys keeps devices' KeyPackages (RFC 9420 §10) and hands each out once.
package keys

import (
	"context"
	"errors"
	"math"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Service answers the calls of schema/keys.capnp. It is safe for concurrent use.
type Service struct {
	store  *store.Store
	policy func() *policy.Policy
	now    func() time.Time
	audit  audit.Sink // audit.Discard until Audit.
}

const (
	// In an hour: claims of an account's KeyPackages by one other account, and by all others.
	claimsPerClaimer = 60
	claimsPerTarget  = 1200
	claimRetry       = 5 * time.Minute
)

// New returns a Service.
func New(s *store.Store, p func() *policy.Policy, now func() time.Time) *Service {
	return &Service{s, p, now, audit.Discard}
}

// Audit has what is refused told to sink. Call it before the Service is used.
func (s *Service) Audit(sink audit.Sink) { s.audit = sink }

// refused tells of KeyPackages that were not stored, and returns why.
func (s *Service) refused(ctx context.Context, p identity.Principal, r audit.Reason, err error) error {
	s.audit.Tally(ctx, audit.PackagesRefused(p.AccountID, p.DeviceID, r).At(s.now()))
	return err
}

// Upload checks and stores KeyPackages of the calling device, all or none.
func (s *Service) Upload(ctx context.Context, p identity.Principal, r *wire.UploadKeyPackagesRequest) (*wire.KeyPackageStatus, error) {
	account, err := s.store.AccountByID(ctx, p.AccountID)
	if err != nil {
		return nil, err
	}
	rules := s.policy().MLS
	var rows []store.KeyPackage
	for _, b := range r.OneTime {
		row, err := s.check(b, p, account, false, time.Duration(rules.KeyPackageLifetime))
		if err != nil {
			return nil, s.refused(ctx, p, audit.ReasonInvalidPackage, err)
		}
		rows = append(rows, row)
	}
	if len(r.LastResort) > 0 {
		row, err := s.check(r.LastResort, p, account, true, time.Duration(rules.LastResortLifetime))
		if err != nil {
			return nil, s.refused(ctx, p, audit.ReasonInvalidPackage, err)
		}
		rows = append(rows, row)
	}
	uploaded := audit.PackagesUploaded(p.AccountID, p.DeviceID, len(r.OneTime), len(r.LastResort) > 0).At(s.now())
	switch err := s.store.AddKeyPackages(ctx, p.DeviceID, rows, rules.MaxKeyPackagesPerDevice, s.now(), uploaded); {
	case errors.Is(err, store.ErrExists):
		return nil, s.refused(ctx, p, audit.ReasonReusedPackage,
			wire.Errorf(wire.CodeReusedKeyPackage, "one of the KeyPackages, or its init key, was uploaded before; make fresh ones"))
	case errors.Is(err, store.ErrTooMany):
		return nil, s.refused(ctx, p, audit.ReasonTooMany,
			wire.Errorf(wire.CodeInvalidArgument, "a device keeps at most %d one-time KeyPackages; upload fewer", rules.MaxKeyPackagesPerDevice).With("field", "oneTime"))
	case err != nil:
		return nil, err
	}
	return s.Status(ctx, p)
}

func (s *Service) check(b []byte, p identity.Principal, a store.Account, lastResort bool, longest time.Duration) (store.KeyPackage, error) {
	kp, err := mlspolicy.KeyPackage(b, p.DeviceID, p.AccountID, a.RootKey, s.now(), longest)
	if err != nil {
		return store.KeyPackage{}, err
	}
	if kp.LastResort() != lastResort {
		return store.KeyPackage{}, wire.Errorf(wire.CodeInvalidKeyPackage, "the last_resort extension belongs on the last-resort KeyPackage, and only there")
	}
	ref := kp.Ref()
	_, expires := kp.Lifetime()
	return store.KeyPackage{DeviceID: p.DeviceID, Ref: ref[:], InitKey: kp.InitKey, LastResort: lastResort, ExpiresAt: expires, Package: b}, nil
}

// Status says what the calling device has left.
func (s *Service) Status(ctx context.Context, p identity.Principal) (*wire.KeyPackageStatus, error) {
	oneTime, lastResort, err := s.store.KeyPackageStatus(ctx, p.DeviceID, s.now())
	if err != nil {
		return nil, err
	}
	return &wire.KeyPackageStatus{OneTime: uint16(min(oneTime, math.MaxUint16)), LastResortExpiresAt: lastResort}, nil //nolint:gosec // bounded.
}

// Claim takes one KeyPackage of every device of an account. Of the caller's own account it may be none: the caller's
// own device is left out. A device without any package is left out too.
func (s *Service) Claim(ctx context.Context, p identity.Principal, r *wire.ClaimKeyPackagesRequest) (*wire.ClaimKeyPackagesResponse, error) {
	if r.AccountID != p.AccountID {
		if _, err := s.store.AccountByID(ctx, r.AccountID); errors.Is(err, store.ErrNotFound) {
			return nil, wire.Errorf(wire.CodeNotFound, "there is no account %s", r.AccountID)
		} else if err != nil {
			return nil, err
		}
	}
	c := &store.Claim{Claimer: p.DeviceID, ClaimerAccount: p.AccountID, Request: r.RequestID, Account: r.AccountID, Low: store.FewKeyPackages(s.policy().MLS.MaxKeyPackagesPerDevice), At: s.now()}
	if r.AccountID != p.AccountID {
		if err := s.wanted(ctx, p, r.AccountID); err != nil {
			return nil, err
		}
		c.PerClaimer, c.PerTarget = claimsPerClaimer, claimsPerTarget
	}
	claimed, err := s.store.ClaimKeyPackages(ctx, c, func(all []store.KeyPackage) audit.Event { return claimEvent(p, r, all).At(s.now()) })
	if errors.Is(err, store.ErrClaimsTooMuch) {
		s.audit.Tally(ctx, audit.ClaimRefused(p.AccountID, p.DeviceID, r.AccountID, audit.ReasonRateLimited).At(s.now()))
		return nil, wire.RetryAfterf(wire.CodeRateLimited, claimRetry, "that account's KeyPackages were claimed too often in the last hour").With("limit", "claims")
	}
	if errors.Is(err, store.ErrExists) {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "that request id was used for another account; take a fresh one").With("field", "requestId")
	}
	if err != nil {
		return nil, err
	}
	if len(claimed) == 0 && r.AccountID != p.AccountID {
		s.audit.Tally(ctx, audit.ClaimRefused(p.AccountID, p.DeviceID, r.AccountID, audit.ReasonNoPackage).At(s.now()))
		return nil, wire.Errorf(wire.CodeNoKeyPackage, "that account has no KeyPackage left; try again when one of its devices has been online")
	}
	out := &wire.ClaimKeyPackagesResponse{}
	for _, c := range claimed {
		out.Packages = append(out.Packages, wire.ClaimedKeyPackage{DeviceID: c.DeviceID, KeyPackage: c.Package, LastResort: c.LastResort})
	}
	return out, nil
}

// wanted checks that an account may have another's KeyPackages: one to whom it may write, or with whom it is in a group,
// where both may make the next generation. Not one that blocks it.
func (s *Service) wanted(ctx context.Context, p identity.Principal, other ids.ID) error {
	rules := s.policy()
	c, err := s.store.ContactOf(ctx, p.AccountID, other)
	if err != nil || c.MayWrite(rules.Contacts == policy.ContactsRequest) {
		return err
	}
	if !c.IsBlocks {
		if share, err := s.store.ShareGroup(ctx, p.AccountID, other); err != nil || share {
			return err
		}
	}
	s.audit.Tally(ctx, audit.ClaimRefused(p.AccountID, p.DeviceID, other, audit.ReasonNotAuthorized).At(s.now()))
	if rules.Contacts == policy.ContactsRequest {
		return wire.Errorf(wire.CodeContactPending, "the other account has not accepted to be written to")
	}
	return wire.Errorf(wire.CodePermissionDenied, "the other account does not want to be written to")
}

func claimEvent(p identity.Principal, r *wire.ClaimKeyPackagesRequest, all []store.KeyPackage) audit.Event {
	lastResort := 0
	for _, k := range all {
		if k.LastResort {
			lastResort++
		}
	}
	return audit.PackagesClaimed(p.AccountID, p.DeviceID, r.AccountID, len(all)-lastResort, lastResort)
}
