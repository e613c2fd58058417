//go:build linux

// Package powerfs is a filesystem that forgets what was not synced when the power goes.
//
// It shows a directory of another filesystem through FUSE and keeps, for every file that was written since it was last
// synced, what was in the written pages before. PowerLoss puts some of that back: of each file's unsynced pages all, none
// or any, whole (4 KiB) or torn at sectors (512 bytes), with a length between the synced one and the present one; a page that was
// written repeatedly may also have been written back in between. What fsync and fdatasync were called for stays.
//
// Creations, removals, renames and truncations of files happen in an order, as in the journal of ext4 or XFS: at a loss any
// number of the last ones is undone, but none that an fsync of any file or directory came after. Data is not ordered with
// them: a file may be there and be empty.
//
// There is no writeback cache between the programs and this filesystem: when a process is killed, all that it wrote has arrived here.
// It is Linux's alone and needs /dev/fuse and the right to mount; Usable tells.
package powerfs
