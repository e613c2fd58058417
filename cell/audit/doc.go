// Package audit is the cell's audit log: what an event is, how events become chains that nobody can change unseen, and
// how a log, or an export of one, is verified. It knows no database; package store keeps what it makes.
//
// # Events
//
// An Event is made by one of this package's constructors and by nothing else. It has no text: kinds, reasons and the
// names of its fields are enumerations, details are integers, and whoever it is about is given by id. Before it is
// stored it becomes a Record, in which each id is a pseudonym under a random key of its account (SubjectKey) and
// addresses are hashed with a key that is forgotten. When an account is deleted its key goes, and nothing can tell any
// longer whom its records were about; the chains stay as they are.
//
// # Chains and checkpoints
//
// A Row is a record in one writer's chain: its hash covers the hash of the row before. Row and MAC are made by a
// process of the cell, in the transaction of what the record is about. Every minute in which something happened one
// process signs a Checkpoint: the heads of the chains that moved, and the hash of the checkpoint before.
//
// docs/design/0006-audit.md says why, and what is not protected.
package audit
