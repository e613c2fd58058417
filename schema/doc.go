// Package schema holds the Cap'n Proto schema of the cell's wire protocol and the Go code generated from it.
//
// Most callers want the packages beside it: frame cuts a stream into messages within limits, wire turns messages
// into checked Go values, devicecert encodes the certificate that binds a device to its account. docs/protocol.md
// is the protocol's description; VERSIONING.md says how it may change.
package schema

// Version is the schema version this code speaks, carried in every Envelope.
const Version = 1
