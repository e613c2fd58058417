package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The sections below become the policy file of the cell. A change reaches
// running servers within two minutes, without a restart.

// LimitsSpec bounds what one client, one address and one replica may ask for.
type LimitsSpec struct {
	// requestsPerSecond is the sustained rate of requests of one account, of
	// one connection and, before it has logged in, of one client address;
	// costly requests count for several. Each replica counts by itself.
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`

	// requestBurst is how many requests may come at once above that rate.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=200000
	// +optional
	RequestBurst int32 `json:"requestBurst,omitempty"`

	// loginsPerMinute is how many logins by password, and signups, one client
	// address may begin, successful or not; a minute's worth may come at once.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600000
	// +optional
	LoginsPerMinute int32 `json:"loginsPerMinute,omitempty"`

	// lookupsPerMinute is how many accounts one account may look up by name
	// or id; a minute's worth may come at once.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600000
	// +optional
	LookupsPerMinute int32 `json:"lookupsPerMinute,omitempty"`

	// messagesPerChannel is how many messages a second one channel takes,
	// whoever sends them; twice as many may come at once. Each replica counts
	// by itself. Left out, or 0, it is four times requestsPerSecond.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	MessagesPerChannel int32 `json:"messagesPerChannel,omitempty"`

	// connectionsPerIP is how many connections one client address may hold
	// open to one replica; an IPv6 address counts by its /64. Twice as many
	// may be made at once, and a fifth of them in each further second.
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	ConnectionsPerIP int32 `json:"connectionsPerIP,omitempty"`

	// maxConnections is how many connections one replica holds open.
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	MaxConnections int32 `json:"maxConnections,omitempty"`

	// handshakesBeforeRetry is how many handshakes may be under way at one
	// replica before it asks newcomers to show that their address is theirs,
	// which costs them a round trip. Never more than a quarter of
	// maxConnections.
	// +kubebuilder:default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	HandshakesBeforeRetry int32 `json:"handshakesBeforeRetry,omitempty"`

	// maxPayloadBytes is the longest message in bytes, after encryption. It
	// can be lowered from 5 MiB, not raised.
	// +kubebuilder:default=5242880
	// +kubebuilder:validation:Minimum=16384
	// +kubebuilder:validation:Maximum=5242880
	// +optional
	MaxPayloadBytes int32 `json:"maxPayloadBytes,omitempty"`

	// maxInFlightPerDevice is how many pushed messages a device may leave
	// unacknowledged before the cell waits for it.
	// +kubebuilder:default=256
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	// +optional
	MaxInFlightPerDevice int32 `json:"maxInFlightPerDevice,omitempty"`

	// trustedRanges are address ranges (CIDR) that the limits per address do
	// not apply to, such as that of a proxy which many people share, or of a
	// load test.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="is not an address range; write one such as 10.0.0.0/8 or 2001:db8::/32"
	// +listType=set
	// +optional
	TrustedRanges []string `json:"trustedRanges,omitempty"`
}

// RetentionSpec is how long the cell keeps what it stores.
type RetentionSpec struct {
	// messages is how long a message can be read after it was sent, from 1h
	// to 8760h (a year).
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('8760h')",message="is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 168h for 7 days"
	// +optional
	Messages metav1.Duration `json:"messages,omitzero"`

	// dedupWindow is how long a message that a client sends again is
	// recognized and not stored twice, from 1h to 2160h (90 days). It does
	// not depend on messages.
	// +kubebuilder:default="336h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('2160h')",message="is not a duration from 1h to 2160h; write hours, minutes or seconds, such as 336h for 14 days"
	// +optional
	DedupWindow metav1.Duration `json:"dedupWindow,omitzero"`

	// inbox is how long what is addressed to a single device, such as a
	// Welcome to a group, waits for it, from 1h to 8760h.
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('8760h')",message="is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 720h for 30 days"
	// +optional
	Inbox metav1.Duration `json:"inbox,omitzero"`

	// audit is how long the audit log is kept, from 24h to 87600h (10 years).
	// A daily Job removes what is older; what remains can still be verified.
	// +kubebuilder:default="9600h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('24h') && duration(self) <= duration('87600h')",message="is not a duration from 24h to 87600h; write hours, minutes or seconds, such as 9600h for 400 days"
	// +optional
	Audit metav1.Duration `json:"audit,omitzero"`

	// history keeps messages until messages has passed. When false, a message
	// is deleted as soon as every device of its channel has it.
	// +kubebuilder:default=true
	// +optional
	History *bool `json:"history,omitempty"`
}

// MLSSpec is what the cell enforces about MLS KeyPackages (RFC 9420 §10).
//
// +kubebuilder:validation:XValidation:rule="!has(self.keyPackageLifetime) || !has(self.lastResortLifetime) || [self.keyPackageLifetime, self.lastResortLifetime].exists(d, size(d) == 0 || !d.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$')) || duration(self.lastResortLifetime) >= duration(self.keyPackageLifetime)",fieldPath=".lastResortLifetime",message="is shorter than keyPackageLifetime; write as much or more"
type MLSSpec struct {
	// keyPackageLifetime is the longest lifetime of a KeyPackage that is
	// handed out once, from 1h to 720h.
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('720h')",message="is not a duration from 1h to 720h; write hours, minutes or seconds, such as 24h"
	// +optional
	KeyPackageLifetime metav1.Duration `json:"keyPackageLifetime,omitzero"`

	// lastResortLifetime is the longest lifetime of the KeyPackage that is
	// handed out when a device has no other left, from 24h to 8760h.
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('24h') && duration(self) <= duration('8760h')",message="is not a duration from 24h to 8760h; write hours, minutes or seconds, such as 720h for 30 days"
	// +optional
	LastResortLifetime metav1.Duration `json:"lastResortLifetime,omitzero"`

	// maxKeyPackagesPerDevice is how many KeyPackages of one device are kept
	// until they are handed out.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	MaxKeyPackagesPerDevice int32 `json:"maxKeyPackagesPerDevice,omitempty"`
}

// SessionsSpec is the lifetime of the tokens that devices log in with.
//
// +kubebuilder:validation:XValidation:rule="!has(self.accessTokenTTL) || !has(self.refreshTokenTTL) || [self.accessTokenTTL, self.refreshTokenTTL].exists(d, size(d) == 0 || !d.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$')) || duration(self.refreshTokenTTL) > duration(self.accessTokenTTL)",fieldPath=".refreshTokenTTL",message="is not longer than accessTokenTTL; write more"
type SessionsSpec struct {
	// accessTokenTTL is how long an access token is good for, from 1m to 24h.
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1m') && duration(self) <= duration('24h')",message="is not a duration from 1m to 24h; write hours, minutes or seconds, such as 15m"
	// +optional
	AccessTokenTTL metav1.Duration `json:"accessTokenTTL,omitzero"`

	// refreshTokenTTL is how long a device stays logged in without being
	// used, from 1h to 8760h.
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('8760h')",message="is not a duration from 1h to 8760h; write hours, minutes or seconds, such as 720h for 30 days"
	// +optional
	RefreshTokenTTL metav1.Duration `json:"refreshTokenTTL,omitzero"`

	// maxAge is how long a device stays logged in at most, however much it is
	// used, from 1h to 87600h (10 years).
	// +kubebuilder:default="2160h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && size(self) > 0 && duration(self) >= duration('1h') && duration(self) <= duration('87600h')",message="is not a duration from 1h to 87600h; write hours, minutes or seconds, such as 2160h for 90 days"
	// +optional
	MaxAge metav1.Duration `json:"maxAge,omitzero"`
}
