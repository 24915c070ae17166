#!/bin/bash
# dracut module of the trust agent. Installed by `trust-agent initramfs install` as modules.d/60trust-agent.

check() {
	require_binaries /usr/bin/trust-agent || return 1
	# Only where it was asked for: trust-agent initramfs install writes add_dracutmodules.
	return 255
}

depends() {
	echo network
	return 0
}

cmdline() {
	# The network must come up although the root disk does not need it.
	printf ' rd.neednet=1'
}

install() {
	mkdir -p "$initdir/etc/cmdline.d"
	cmdline >"$initdir/etc/cmdline.d/60trust-agent.conf"
	if ! /usr/bin/trust-agent initramfs stage "$initdir"; then
		dwarn "trust-agent: left out of the initramfs, so that disks which open by attestation ask for their passphrase"
		return 0
	fi
	inst_binary /usr/bin/trust-agent /usr/bin/trust-agent
	# clevis asks from its hook 60 of initqueue/online on, or from its systemd service, again and again.
	inst_hook initqueue/online 50 "$moddir/attest.sh"
	inst_hook pre-pivot 50 "$moddir/latch.sh"
}

installkernel() {
	hostonly='' instmods '=drivers/char/tpm' efivarfs
}
