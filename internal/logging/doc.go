// Package logging makes the loggers of all programs, so that a log holds neither secrets nor names nor clients' addresses.
//
// It does not look for what must not be there; it says what may be there. An attribute is written when its type cannot
// hold anything else than what a log is for: numbers, times, durations, truth values, ids (schema/ids). Bytes, addresses,
// structures and everything that nobody thought of are replaced by the name of their type. A text is written under the
// keys of a list alone, and an error is a text. Besides, every text that is written loses addresses, what stands
// between :// and @, PEM blocks, and long runs of hex or base64: errors come from other people's libraries.
//
// Accounts, devices, channels and connections are named by their ids, which lead to a person only by way of the
// database. To look at what one address does there are metrics, and the audit log, which hashes addresses.
package logging
