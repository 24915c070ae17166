// Package imagekey holds the formats by which the key of an encrypted image travels: from AIAS, which keeps it, to the layers that it
// protects, and to the TPM of a worker that may have it.
//
// An image has one key of 32 random bytes. Each layer of it is encrypted by ocicrypt under a key of its own; what ocicrypt needs to decrypt
// the layer (its private options) is sealed under the image's key and stands in the layer's annotation (Annotation). AIAS gives
// the image's key to a worker by HPKE (RFC 9180) to a P-256 key that lives in the worker's TPM and works only in the state that the
// worker booted into (SealTo).
//
// Nothing in an annotation says who may have the key: that stands in AIAS's record of the key. An annotation names the key, and is bound
// to the name and to the layer.
//
// Annotations of Confidential Containers (CoCo) are read too (Packet). Their key ID is a URL; it is looked up at AIAS as a name, and
// never dereferenced.
package imagekey
