// Package backup is the form of a backup of AIAS: one encrypted file that is written and read as a stream.
//
// It is a tar archive inside age (age-encryption.org/v1), encrypted to recipients' public keys or to a passphrase. age authenticates every
// 64 KiB and the end, so that a changed, cut or spliced file is noticed; the archive besides ends with a member that counts the others.
//
//	backup.json       what it is: format, time, version of AIAS
//	key               32 bytes, the key under which the secrets in the database are sealed
//	aias.db           SQLite database
//	ledger/checkpoint signed checkpoint of the ledger
//	ledger/0000000000 entries, 256 in each, with a size of two bytes before each (C2SP tlog-tiles)
//	audit/n-NODE      where the chain of a node's audit events stands, without events
//	references/...    files of the folder of references
//	end.json          number of members before it
//
// # Limits
//
// Names are those above; a file of the references has a local path of at most 512 bytes. Sizes are bounded per member.
package backup
