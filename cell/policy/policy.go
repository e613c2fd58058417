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

// Policy is one complete, validated policy. Parse and Default return values
// of their own, which callers treat as read-only; a Policy that nobody
// changes is safe for concurrent use.
type Policy struct {
	// Version is the file's version, always the constant Version.
	Version string `json:"version"`
	// Contacts is who may open a direct channel. Default open.
	Contacts ContactMode `json:"contacts"`
	// Limits bounds what one client, one address and one pod may ask for.
	Limits Limits `json:"limits"`
	// Retention is how long the server keeps what it stores.
	Retention Retention `json:"retention"`
	// MLS is what the server enforces about KeyPackages.
	MLS MLS `json:"mls"`
	// Sessions is the lifetime of tokens.
	Sessions Sessions `json:"sessions"`
}

// Limits bounds what one client, one address and one pod may ask for.
type Limits struct {
	// RequestsPerSecond is the sustained rate of one account and, before
	// authentication, of one client address. Default 50, 1 to 100000.
	RequestsPerSecond int `json:"requestsPerSecond"`
	// RequestBurst is how many requests may come at once above the sustained
	// rate: the depth of the token bucket. Default 100, 1 to 200000.
	RequestBurst int `json:"requestBurst"`
	// ConnectionsPerIP is how many connections one client address may hold
	// open to one pod. Default 50, 1 to 100000.
	ConnectionsPerIP int `json:"connectionsPerIP"`
	// MaxConnections is how many connections one pod holds open.
	// Default 10000, 1 to 1000000.
	MaxConnections int `json:"maxConnections"`
	// MaxPayloadBytes is the longest MLS message that is accepted, in bytes.
	// Default and most 5242880 (MaxPayloadBytes), least 16384.
	MaxPayloadBytes int `json:"maxPayloadBytes"`
	// MaxInFlightPerDevice is how many pushed messages one device may leave
	// unacknowledged before the server stops pushing. Default 256, 1 to 4096.
	MaxInFlightPerDevice int `json:"maxInFlightPerDevice"`
	// TrustedRanges are client addresses exempt from the caps per address,
	// such as those of a proxy or a NAT that many people share. Masked,
	// sorted, without repetition. Default none.
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
