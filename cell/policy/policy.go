// Package policy is the file by which a MessagingCell's limits, retention and
// MLS rules reach the running delivery server. The operator writes it, the
// cell reads it; this package is all they share, and it imports nothing else
// of this module.
//
// The file is YAML:
//
//	version: quicproquo.dev/policy/v1
//	contacts: open
//	limits:
//	  requestsPerSecond: 50
//	retention:
//	  messages: 168h
//
// Every field but version may be left out and then takes the value of
// [Default]. Anything the package does not know is an error, so that a
// misspelt limit cannot silently be no limit.
package policy

import (
	"net/netip"
)

// Version is the only file version this package reads and writes. A file
// must state it: an empty or truncated file is thereby never a valid policy.
const Version = "quicproquo.dev/policy/v1"

// SuiteX25519AES128 is the one ciphersuite a cell accepts, by the name that
// RFC 9420 §17.1 registers for 0x0001.
const SuiteX25519AES128 = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"

// MaxPayloadBytes is the most that Limits.MaxPayloadBytes can be: 5 MiB.
const MaxPayloadBytes = 5 << 20

// ContactMode says who may open a direct channel to whom.
type ContactMode string

const (
	// ContactsOpen lets every account open a direct channel to any other.
	ContactsOpen ContactMode = "open"
	// ContactsRequest asks the other account first; no KeyPackage of it is
	// handed out before it accepts.
	ContactsRequest ContactMode = "request"
)

// SignupMode says who may make an account.
type SignupMode string

const (
	// SignupOpen lets everybody who reaches the cell make an account.
	SignupOpen SignupMode = "open"
	// SignupInvitation takes an invitation for each account.
	SignupInvitation SignupMode = "invitation"
	// SignupClosed takes no new accounts.
	SignupClosed SignupMode = "closed"
)

// Policy is one complete, validated policy. Parse and Default return values
// of their own, which callers treat as read-only; a Policy that nobody
// changes is safe for concurrent use.
type Policy struct {
	// Version is the file's version, always the constant Version.
	Version string `json:"version"`
	// Contacts is who may open a direct channel. Default open.
	Contacts ContactMode `json:"contacts"`
	// Signup is who may make an account. Default open.
	Signup SignupMode `json:"signup"`
	// Limits bounds what one client, one address and one pod may ask for.
	Limits Limits `json:"limits"`
	// Retention is how long the server keeps what it stores.
	Retention Retention `json:"retention"`
	// MLS is what the server enforces about KeyPackages.
	MLS MLS `json:"mls"`
	// Sessions is the lifetime of tokens.
	Sessions Sessions `json:"sessions"`
	// Access is what a client shows of itself in the TLS handshake, and which
	// of them are admins.
	Access Access `json:"access"`
}

// Limits bounds what one client, one address and one pod may ask for.
type Limits struct {
	// RequestsPerSecond is the sustained rate of one account, of one
	// connection and, before authentication, of one client address; costly
	// requests count for several. Each pod counts by itself.
	// Default 50, 1 to 100000.
	RequestsPerSecond int `json:"requestsPerSecond"`
	// RequestBurst is how many requests may come at once above the sustained
	// rate: the depth of the token bucket. Default 100, 1 to 200000.
	RequestBurst int `json:"requestBurst"`
	// LoginsPerMinute is how many logins by password, and signups, one client
	// address may begin, successful or not; a minute's worth may come at once.
	// Default 60, 1 to 600000.
	LoginsPerMinute int `json:"loginsPerMinute"`
	// LookupsPerMinute is how many accounts one account may look up by name or
	// id; a minute's worth may come at once. Default 60, 1 to 600000.
	LookupsPerMinute int `json:"lookupsPerMinute"`
	// MessagesPerChannel is how many messages a second one channel takes,
	// whoever sends them; twice as many may come at once. Each pod counts by
	// itself. 0 is four times RequestsPerSecond. Default 0, 0 to 1000000.
	MessagesPerChannel int `json:"messagesPerChannel,omitempty"`
	// ConnectionsPerIP is how many connections one client address may hold
	// open to one pod; an IPv6 address counts by its /64. Twice as many may be
	// made at once, and a fifth of them in each further second.
	// Default 50, 1 to 100000.
	ConnectionsPerIP int `json:"connectionsPerIP"`
	// MaxConnections is how many connections one pod holds open.
	// Default 10000, 1 to 1000000.
	MaxConnections int `json:"maxConnections"`
	// HandshakesBeforeRetry is how many handshakes may be under way at one pod
	// before it asks newcomers to show that their address is theirs, which
	// costs them a round trip (QUIC's Retry). Never more than a quarter of
	// MaxConnections. Default 256, 1 to 100000.
	HandshakesBeforeRetry int `json:"handshakesBeforeRetry"`
	// MaxPayloadBytes is the longest MLS message that is accepted, in bytes.
	// Default and most 5242880 (MaxPayloadBytes), least 16384.
	MaxPayloadBytes int `json:"maxPayloadBytes"`
	// MaxInFlightPerDevice is how many pushed messages one device may leave
	// unacknowledged before the server stops pushing. Default 256, 1 to 4096.
	MaxInFlightPerDevice int `json:"maxInFlightPerDevice"`
	// TrustedRanges are client addresses exempt from the limits per address,
	// such as those of a proxy or a NAT that many people share, or of a load
	// test. Masked, sorted, without repetition. Default none.
	TrustedRanges []netip.Prefix `json:"trustedRanges"`
}

// Retention is how long the server keeps what it stores.
type Retention struct {
	// Messages is how long a message can be read after it was accepted.
	// Default 168h, 1h to 8760h.
	Messages Duration `json:"messages"`
	// DedupWindow is how far back a repeated delivery id is recognized, by
	// the id's own time; it does not depend on Messages.
	// Default 336h, 1h to 2160h.
	DedupWindow Duration `json:"dedupWindow"`
	// Inbox is how long what is addressed to a single device, such as a
	// Welcome, waits for it. Default 720h, 1h to 8760h.
	Inbox Duration `json:"inbox"`
	// Audit is how long the audit log is kept; "cell audit prune" removes what
	// is older. Default 9600h (400 days), 24h to 87600h (10 years).
	Audit Duration `json:"audit"`
	// History keeps messages until Messages has passed. When false a message
	// is deleted once every member device has acknowledged it. Default true.
	History bool `json:"history"`
}

// MLS is what the server enforces about ciphersuites and KeyPackages.
type MLS struct {
	// Suites are the accepted ciphersuites: exactly SuiteX25519AES128.
	Suites []string `json:"suites"`
	// KeyPackageLifetime is the longest lifetime of a KeyPackage that is
	// handed out once. Default 24h, 1h to 720h.
	KeyPackageLifetime Duration `json:"keyPackageLifetime"`
	// LastResortLifetime is the longest lifetime of a device's last-resort
	// KeyPackage, not below KeyPackageLifetime. Default 720h, 24h to 8760h.
	LastResortLifetime Duration `json:"lastResortLifetime"`
	// MaxKeyPackagesPerDevice is how many unclaimed KeyPackages a device may
	// have stored. Default 100, 1 to 1000.
	MaxKeyPackagesPerDevice int `json:"maxKeyPackagesPerDevice"`
}

// Sessions is the lifetime of tokens.
type Sessions struct {
	// AccessTokenTTL is how long an access token opens a session.
	// Default 15m, 1m to 24h.
	AccessTokenTTL Duration `json:"accessTokenTTL"`
	// RefreshTokenTTL is how long an unused refresh token can be exchanged;
	// longer than AccessTokenTTL. Default 720h, 1h to 8760h.
	RefreshTokenTTL Duration `json:"refreshTokenTTL"`
	// MaxAge is how long a session lasts at most, counted from its login,
	// however often its tokens are exchanged. Default 2160h (90 days), 1h to
	// 87600h.
	MaxAge Duration `json:"maxAge"`
}

// Default returns the policy of a file that states only its version.
func Default() *Policy {
	p := &Policy{Version: Version, Retention: Retention{History: true}}
	p.fillDefaults()
	return p
}

// Trusts reports whether addr is exempt from the caps per address. An IPv4
// address that arrived on an IPv6 socket is judged as the IPv4 address.
func (l *Limits) Trusts(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, r := range l.TrustedRanges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}
