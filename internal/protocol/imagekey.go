package protocol

import (
	"encoding/json"
	"time"
)

// Paths of image keys and trust classes. {id} is the ID of a key, {class} the name of a class.
const (
	PathImageKeys    = "/v1/image-keys"         // GET -> ImageKeyList; POST ImageKeyRequest -> NewImageKey
	PathImageKey     = "/v1/image-keys/{id}"    // GET -> ImageKey; PUT ImageKeyChange -> ImageKey
	PathImageRelease = "/v1/image-keys/release" // POST ReleaseRequest, node certificate -> Release
	PathImageHeld    = "/v1/image-keys/held"    // POST HeldKeys, node certificate -> LostKeys
	PathClasses      = "/v1/classes"            // GET -> ClassList
	PathClass        = "/v1/classes/{class}"    // PUT Class -> Class; DELETE
)

// ImageKeyRequest asks for the key of a new encrypted image.
type ImageKeyRequest struct {
	// Class is the trust class that a node must meet to get the key. Conditions say it in full instead; they are those of a class
	// (levels, warnings, softwareTPM, maxResultAge, tags).
	Class      string          `json:"class,omitempty"`
	Conditions json.RawMessage `json:"conditions,omitempty"`
	Image      string          `json:"image,omitempty"` // what it is for, for people
	// ID and Key bring a key that another broker made: kbs:///REPOSITORY/TYPE/TAG, and its 32 bytes.
	ID  string `json:"id,omitempty"`
	Key []byte `json:"key,omitempty"`
}

// NewImageKey is a key with its secret, which AIAS shows this once to nobody but its maker.
type NewImageKey struct {
	ImageKey
	Key []byte `json:"key"`
}

// ImageKey is AIAS's record of a key.
type ImageKey struct {
	ID    string `json:"id"`
	Class string `json:"class,omitempty"`
	// Conditions are what the class demanded when the key was made, or when it was changed last.
	Conditions json.RawMessage `json:"conditions"`
	Image      string          `json:"image,omitempty"`
	Created    time.Time       `json:"created"`
	By         string          `json:"by"`
	Revoked    time.Time       `json:"revoked,omitzero"` // no node gets the key since then
}

// ImageKeyList answers PathImageKeys, newest first.
type ImageKeyList struct {
	Keys []ImageKey `json:"keys"`
}

// ImageKeyChange changes who gets a key; what is left out stays.
type ImageKeyChange struct {
	Class      string          `json:"class,omitempty"` // takes the conditions of the class as it is now
	Conditions json.RawMessage `json:"conditions,omitempty"`
	Revoked    *bool           `json:"revoked,omitempty"`
}

// ReleaseRequest asks for a key, to be encrypted to a key that lives in the node's TPM and is bound to the state that it booted into.
type ReleaseRequest struct {
	ID        string `json:"id"`
	Bank      string `json:"bank"`      // whose PCRs the TPM's key is bound to: "sha256"
	Public    []byte `json:"public"`    // TPMT_PUBLIC of the TPM's key
	Certify   []byte `json:"certify"`   // TPMS_ATTEST of TPM2_Certify over it, by the attestation key
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
}

// Release is a key, encrypted to the TPM (package imagekey).
type Release struct {
	ID     string `json:"id"`
	Sealed []byte `json:"sealed"`
}

// HeldKeys names keys by which a node has decrypted images that it still has.
type HeldKeys struct {
	Keys []string `json:"keys"`
}

// LostKeys names those that the node would not get any more: their images have to go.
type LostKeys struct {
	Lost []LostKey `json:"lost"`
}

// LostKey is a key that a node would not get any more.
type LostKey struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// Class is what a trust class demands of a node, as AIAS knows it.
type Class struct {
	Name       string          `json:"name,omitempty"`
	Conditions json.RawMessage `json:"conditions"`
	Set        time.Time       `json:"set,omitzero"`
	By         string          `json:"by,omitempty"`
}

// ClassList answers PathClasses, sorted by name.
type ClassList struct {
	Classes []Class `json:"classes"`
}
