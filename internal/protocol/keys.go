package protocol

import "time"

// KeyInfo is a key-encryption key of AIAS.
type KeyInfo struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"` // file, passphrase, tpm ...
	Created time.Time `json:"created"`
	Current bool      `json:"current"`
	Missing bool      `json:"missing"` // AIAS does not have it: what is sealed under it cannot be opened
	Secrets int       `json:"secrets"` // sealed under it
}

// KeyList answers PathKeys, oldest first.
type KeyList struct {
	Keys   []KeyInfo `json:"keys"`
	Moving bool      `json:"moving"` // the configuration names another kind of place; a rotation moves there
}

// KeyRotation answers PathKeysRotate.
type KeyRotation struct {
	From     []string `json:"from"`
	To       string   `json:"to"`
	Resealed int      `json:"resealed"` // secrets
	Resumed  bool     `json:"resumed"`  // an earlier rotation was brought to its end; no new key was made
}
