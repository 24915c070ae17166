// Package keyprovider speaks the key provider protocol of ocicrypt on a worker: gRPC over a unix socket, one bytes field that holds JSON
// (ocicrypt, docs/keyprovider.md). Serve answers runtimes and stream processors for the trust agent; Unwrap is the client, with a deadline,
// which ocicrypt's own has not.
//
// The protocol names no image, no pod and no node: whoever may connect gets what this worker may have. So the socket is its owner's
// alone, and the kernel says who connects (SO_PEERCRED): only root and who is listed, which means the container runtime. Wrapping is
// refused there: images are encrypted where an operator's certificate is, not on a worker. Wrapper does that part, for the clients of ocicrypt
// that encrypt by themselves.
package keyprovider
