// Package images tests encrypted images with real peers, as `make e2e-images`: touchstone image encrypt, Debian's docker-registry, skopeo that carries
// images from place to place, AIAS with the real verifier, the trust agent on a software TPM that holds a captured boot, and containerd (Debian's
// 1.6, and a 2.x from its module), which `trust-agent image-provider install` prepares, and which pulls through CRI, decrypts with ctd-decoder and
// runs.
//
// It needs root (containers) and installs containerd, runc, busybox-static, docker-registry, skopeo and swtpm where they are missing.
package images
