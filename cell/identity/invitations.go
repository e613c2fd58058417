package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/wire"
)

// How long what an admin mints can be used.
const (
	MinCodeLife = time.Minute
	MaxCodeLife = 365 * 24 * time.Hour
)

// errCodeLife says that a code was to be minted for too short or too long.
var errCodeLife = wire.Errorf(wire.CodeInvalidArgument, "a code can be used for one minute to 365 days").With("field", "lifetime")

// Invite mints an invitation for one account, for whoever may: the caller has checked that. The code is told once and
// not stored. by is recorded.
func (s *Service) Invite(ctx context.Context, life time.Duration, by audit.By) (code string, expires time.Time, err error) {
	if life < MinCodeLife || life > MaxCodeLife {
		return "", time.Time{}, errCodeLife
	}
	c, now := codes.New(), s.now()
	expires = now.Add(life)
	if err := s.store.AddInvitation(ctx, hashInvitation(c[:]), now, expires, audit.InviteMinted(by, 1, expires).At(now)); err != nil {
		return "", time.Time{}, err
	}
	return c.Format(codes.Invitation), expires, nil
}

// ResetCode mints a code by which an account of that name can start over under another root key, for whoever may: the
// caller has checked that, and that the person who gets it is the account's. It replaces an earlier one. notFound: there
// is no such account. by is recorded.
func (s *Service) ResetCode(ctx context.Context, name string, life time.Duration, by audit.By) (code string, expires time.Time, err error) {
	if life < MinCodeLife || life > MaxCodeLife {
		return "", time.Time{}, errCodeLife
	}
	prepared, err := prepareName(name)
	if err != nil {
		return "", time.Time{}, err
	}
	account, err := s.store.AccountByName(ctx, prepared)
	if errors.Is(err, store.ErrNotFound) {
		return "", time.Time{}, wire.Errorf(wire.CodeNotFound, "there is no account of that name")
	}
	if err != nil {
		return "", time.Time{}, err
	}
	c, now := codes.New(), s.now()
	keys := c.Derive(codes.Reset)
	defer keys.Clear()
	expires = now.Add(life)
	if err := s.store.AddResetCode(ctx, account.ID, keys.Public(), now, expires, audit.ResetCodeMinted(by, account.ID, expires).At(now)); err != nil {
		return "", time.Time{}, err
	}
	return c.Format(codes.Reset), expires, nil
}

// hashInvitation is what is stored of an invitation: it has 128 random bits, so that a plain hash cannot be guessed from.
func hashInvitation(code []byte) []byte {
	h := sha256.Sum256(append([]byte("qpq/1 invitation\x00"), code...))
	return h[:]
}

// invitation says what invitation a signup spends, if the policy asks for one, and what the audit log calls that.
func (s *Service) invitation(ctx context.Context, code []byte) (hash []byte, by audit.Reason, err error) {
	switch s.policy().Signup {
	case policy.SignupClosed:
		return nil, 0, s.counted(ctx, audit.SignupRefused(audit.ReasonSignupClosed),
			wire.Errorf(wire.CodeSignupClosed, "this cell takes no new accounts; ask whoever runs it"))
	case policy.SignupInvitation:
		if len(code) != codes.Size {
			return nil, 0, s.noInvitation(ctx)
		}
		return hashInvitation(code), audit.ReasonByInvite, nil
	}
	return nil, audit.ReasonNone, nil
}

// maySignUp refuses early what SignupFinish would refuse.
func (s *Service) maySignUp(ctx context.Context, code []byte) error {
	hash, _, err := s.invitation(ctx, code)
	if err != nil || hash == nil {
		return err
	}
	has, err := s.store.HasInvitation(ctx, hash, s.now())
	if err == nil && !has {
		err = s.noInvitation(ctx)
	}
	return err
}

func (s *Service) noInvitation(ctx context.Context) error {
	return s.counted(ctx, audit.InviteRefused(audit.ReasonInvalidInvite), wire.Errorf(wire.CodeInvalidInvitation,
		"this cell takes new accounts by invitation, and that is none, was used, or has expired; ask whoever runs it for one"))
}
