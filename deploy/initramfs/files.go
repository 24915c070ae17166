// Package initramfs holds what the trust agent puts into an initramfs: hook and scripts of initramfs-tools, and a dracut module. They are
// ordinary files, for packagers, and in the agent, for `trust-agent initramfs install`.
package initramfs

import "embed"

// Files are the files below initramfs-tools/ (as in /etc/initramfs-tools) and dracut/ (the module's folder).
//
//go:embed initramfs-tools dracut
var Files embed.FS
