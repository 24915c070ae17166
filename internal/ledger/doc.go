// Package ledger is the record of AIAS that nobody can change unseen: verdicts, acts of administrators, enrolments, asset tags, and every
// key that was made, released, refused or rotated.
//
// It is a tiled Merkle log (C2SP tlog-tiles) written by transparency-dev/tessera: entries are only ever added, and a checkpoint (C2SP
// tlog-checkpoint, a signed note) commits to all of them. Whoever holds an old checkpoint can prove that the log of today continues it; whoever
// holds a copy of the folder and the public key can verify every entry without AIAS.
//
// # Writing
//
// Append returns when the entry is on disk, or with an error when it is not: code that must not act unrecorded appends first and acts
// then. While one batch is being synced the next one gathers, so that a storm costs a few syncs, not one each. A refusal that repeats
// itself is written once, and then as a number once in RepeatWindow: nobody fills the disk by asking again.
//
// # What it proves, and what not
//
// AIAS itself can write what it likes; it cannot take it back. Somebody who has both the folder and the signing key can write another
// history; he is found out by anybody who kept an older checkpoint (`touchstone ledger verify --checkpoint`).
package ledger
