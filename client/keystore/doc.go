// Package keystore keeps a profile's secrets on disk: a directory of small records, each encrypted on its own.
//
// # Layout
//
// The directory holds the file profile, which carries the profile key wrapped under Argon2id (RFC 9106) of the
// passphrase; the folder records, with one file per record; and the folder locks. The directory is made with mode
// 0700 and every file with 0600.
//
// A record's content is encrypted with AES-256-GCM under a file key drawn for this one version of this one record.
// The file key stands in the file's header, itself encrypted under a key derived from the profile key, the record's
// name and the version. Header and name are authenticated with the content, so files cannot be swapped, renamed or
// mixed without notice. Putting back an older, complete version of a file, or of the whole profile from a backup, is not
// noticed: whoever does that sends with ratchet keys that were used before.
//
// # Replacing
//
// A record is replaced by writing and syncing a temporary file, renaming it over the old one and syncing the folder:
// after a crash either the whole old version is there or the whole new one. Then the header of the old file, with
// the only copy of its file key, is overwritten in place through a descriptor that was opened before the rename,
// and synced. From then on the old content cannot be opened, not even with the passphrase: that is what keeps spent
// message keys spent. A hard link made before the rename lets the next Open finish this when a crash came between.
//
// This holds as far as the filesystem lets it. Where data is not overwritten in place (copy-on-write filesystems,
// snapshots, flash translation layers), old headers may survive on the medium, and reading one takes the medium and
// the passphrase both.
//
// # Sharing
//
// Several processes may use one profile. View and Update hold a lock on the profile for as long as their function
// runs; keep that short, and do no network calls in it. Every record's version is random: a caller that caches what
// it decoded compares Tx.Version.
package keystore
