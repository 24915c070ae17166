// Package keystore seals secrets at rest under a key-encryption key that is kept elsewhere: in a key file, behind a passphrase, or sealed
// by a TPM.
//
// Code that keeps a secret takes a KEK and passes what it keeps through Wrap and Unwrap, with an aad that names the secret and its place
// ("nbde/key/ab12…"): a sealed secret moved to another place does not open. The KEK it is given is a Ring, which writes under its current
// key and reads what older ones wrote, so that a rotation needs no moment at which everything changes.
//
// # Sealed form
//
//	"TSS1" | length and ID of the KEK | length and data key, wrapped by that KEK | nonce | ciphertext and tag
//
// Each Wrap makes a fresh data key; the secret is encrypted with it by AES-256-GCM. The additional data of both, the wrapped data key and
// the secret, is the aad of the caller with the format and the ID of the KEK before it. A KEK thus only ever sees 32 random
// bytes, whether it is an HSM, a server or a key in memory.
//
// # Limits
//
// A secret is at most MaxSecret bytes. What can read this process's memory can read the secrets in use: sealing protects disks, backups and
// copies of the database, not a running AIAS.
package keystore
