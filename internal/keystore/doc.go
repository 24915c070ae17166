// Package keystore seals secrets at rest under a key-encryption key that is kept elsewhere: in a key file, behind a passphrase, sealed
// by a TPM, in a PKCS#11 token, or in the transit engine of a Vault or OpenBao server.
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
// # PKCS#11
//
// The vendors' libraries are C, loaded into the process: an aias that uses them is built with cgo and the tag pkcs11, and is not static. That
// is a build of its own rather than a helper program beside the static one: the module would see each data key in either case, and one
// program less has to be installed, secured and watched. What such a library crashes, it crashes; who does not want that uses the TPM.
//
// # Limits
//
// A secret is at most MaxSecret bytes. What can read this process's memory can read the secrets in use: sealing protects disks, backups and
// copies of the database, not a running AIAS.
package keystore
