// Package imagecrypt encrypts the layers of container images, in the form of ocicrypt, so that every runtime that decrypts by an ocicrypt
// key provider can read them, and only workers that AIAS gives the image's key.
//
// Each layer gets a key of its own (AES-256-CTR with HMAC-SHA256 over the ciphertext, by ocicrypt). What ocicrypt needs to decrypt the
// layer is sealed under the image's key and put into the layer's annotation (package imagekey). Layers are read once, and written
// encrypted to a temporary folder: never in plain.
//
// What stays readable in an encrypted image: its configuration (environment, command, the digests of the unpacked layers), manifests, and
// sizes. Package layercrypt undoes one layer.
package imagecrypt
