// Package opaque runs registrations and logins between this module and an independent implementation of OPAQUE
// (RFC 9807), npm's @serenity-kit/opaque, in both directions: its client against a real cell, and the SDK against its
// server. The npm package is pinned by package-lock.json and kept in a cache outside the checkout.
package opaque
