#!/bin/sh
# Attests once the network is up. It is called for each interface that comes up; one agent is enough.
[ -e /run/trust-agent-boot.pid ] && return 0
[ -d /sys/kernel/security/tpm0 ] || mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
[ -n "$(ls /sys/firmware/efi/efivars 2>/dev/null)" ] || mount -t efivarfs -o nosuid,nodev,noexec efivarfs /sys/firmware/efi/efivars
# Somebody may sit before the machine: with systemd in the initramfs the output of hooks goes to the journal, which nobody sees.
if ! /usr/bin/trust-agent boot attest >/dev/console 2>&1; then
	# Refused, or AIAS is away: the passphrase has its turn, and the agent goes on until the disks are open.
	/usr/bin/trust-agent boot attest --wait 10m --again 15s >/dev/console 2>&1 &
	echo $! >/run/trust-agent-boot.pid
else
	: >/run/trust-agent-boot.pid
fi
