// Package client is the Go SDK of quicproquo: it makes an account, opens direct channels, and sends and receives
// end-to-end encrypted messages through a cell.
//
// # What is trusted
//
// Each account has a root key that signs its devices' certificates, and a device's certificate is the identity of its
// MLS credential. The first root key seen for an account is remembered in the profile; another one later is refused
// with RootKeyChangedError, since a cell cannot exchange a key that it does not hold. The account's own root key is
// kept by the cell under a key that only the password opens; it is not kept on disk.
//
// # What is kept, and when
//
// All state lies in the profile (package keystore). What must hold together is written in one step: a message that
// was encrypted with the ratchet that it advanced, before it is sent; a message that was decrypted with the ratchet
// that it advanced, before it is acknowledged and before it is shown. So a sent message is sent again with the same
// id and the same bytes after a crash, and the cell stores it once; a received one is never lost, and it is shown
// twice only if the process dies between showing it and marking it.
//
// Several processes may use one profile at a time. The newest subscription of a device replaces the one before.
package client
