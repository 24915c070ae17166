// Package assettag is the asset tag document: what AIAS says of one TPM, in the form that the TPM keeps.
//
// An administrator gives a node tags (country=de). AIAS binds them to the node's name, to the endorsement key of its TPM and to a serial
// that counts up with each change, and signs that with ES256. Names and values do not go into the TPM: NV space is scarce, some two
// kilobytes for an index and some ten in all on real chips, and a TPM certifies no more at once than its NV buffer holds, which may
// be 512 bytes; sixteen tags may have 1,648. So the TPM holds a Record of Size bytes with the SHA-256 of the tags, one size for
// all: the index is defined once, written by one command, certified by one command. AIAS, which issued the record, knows the
// tags behind it. Only a certified record equal to the newest one proves tags; the fields and the signature tell what any other one is.
package assettag
