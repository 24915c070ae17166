// Package image makes the root file system of a container image on this machine, without a container engine, so that it can be judged.
//
// Layers are read once, and checked while they are read: against the digest of the stored blob, and unpacked against the digest that the configuration
// names (OCI image specification 1.1, layers and configuration). Nothing in an image is trusted: the kernel resolves every name with the image's root
// as its root (openat2, RESOLVE_IN_ROOT), device nodes are counted and not made, bytes, entries, layers and time are bounded.
//
// Symbolic links are rewritten so that who follows them without a chroot, as oscap does, ends where a process in the container would, never in the files
// of this machine. File times and extended attributes are not kept.
//
// The tree is in a folder that only its owner may enter. It is removed by Close; Sweep removes what a process that was killed left behind.
package image
