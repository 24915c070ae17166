// Package nbde gives disks their keys over the network: it speaks the protocol of Tang to unmodified clevis, and knows whom it serves.
//
// The protocol (McCallum-Relyea, https://github.com/latchset/tang): the server has an exchange key S. Who binds a disk takes S from a signed
// advertisement, makes a key C of its own, and encrypts with the point that both give (ECDH-ES); C stays in the header of the disk. To recover, it
// blinds C with a fresh key, X = C + E, and the server answers S·X, from which only the client can take the blinding off again. The server
// learns neither the key nor which disk it is for. The wire format, status codes and thumbprints are those of tangd 11 to 15; what differs is
// said where it does.
//
// Ring is the keys of one URL prefix, immutable; Server answers HTTP for rings and asks a gate before it recovers. Gate decides, purely, whether
// a node may recover now. Service keeps rings, policies and what happened in a store, with the keys sealed.
//
// tangd makes keys on P-521 alone; ours are on P-256 unless the operator says otherwise, which clevis follows (see Curve).
//
// Limits: 4 KiB a request; keys that sign advertisements are on P-521 only.
package nbde
