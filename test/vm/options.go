package vm

import (
	"io"
	"time"
)

// DefaultCommandLine is that of a hardened worker. The root is a ramfs, not a tmpfs, because IMA's built-in policy does not measure
// what runs from a tmpfs; panic=-1 restarts the machine, which ends it for the host.
const DefaultCommandLine = "console=ttyS0,115200 ima_policy=tcb rootfstype=ramfs audit=1 module.sig_enforce=1 panic=-1 quiet"

// HostAddress is where a guest reaches the host's loopback.
const HostAddress = "10.0.2.2"

// Files in a guest that tests ask for.
const (
	EventLogPath  = "/sys/kernel/security/tpm0/binary_bios_measurements"
	IMABinaryPath = "/sys/kernel/security/ima/binary_runtime_measurements"
	IMAASCIIPath  = "/sys/kernel/security/ima/ascii_runtime_measurements"
	AgentPath     = "/bin/trust-agent"
	ConfigPath    = "/etc/trust-agent.yaml"
)

// Options say what a machine is and what it boots. The zero value of each field is that of a good worker.
type Options struct {
	// Name tells machines apart: each has a TPM with its own EK. Default "worker".
	Name string
	// Kernel is a package of [Lab.Kernels]; default the current one.
	Kernel string
	// CommandLine of the kernel; default [DefaultCommandLine].
	CommandLine string
	// Firmware is the state of the firmware variables.
	Firmware Firmware
	// KernelSigner replaces Debian's signature of the kernel; for a UKI it signs the whole image.
	KernelSigner *Key
	// UKI boots a unified kernel image in place of shim and GRUB, unsigned without KernelSigner.
	UKI bool
	// Files go into the initrd and are measured with it.
	Files map[string]File
	// Initrd takes the place of the initrd that is made of /init and Files; it starts an init on the root file system that does what /init does.
	Initrd []byte
	// RootDisk is an image that the machine sees, read-only, as the virtio disk with the serial number "root".
	RootDisk string
	// JobFiles reach the guest by the job disk: not measured, so that they may differ from boot to boot.
	JobFiles map[string]File
	// IMARules are loaded by /init, one by one, before anything else runs.
	IMARules []string
	// Persist names folders whose files live through Stop and Reboot.
	Persist []string
	// MemoryMB is the guest's memory; default 768.
	MemoryMB int
	// Console receives a copy of the serial console.
	Console io.Writer
	// BootTimeout is how long [Machine.Start] waits for /init; default 6 minutes, for slow hosts.
	BootTimeout time.Duration
}

func (o *Options) setDefaults() {
	if o.Name == "" {
		o.Name = "worker"
	}
	if o.CommandLine == "" {
		o.CommandLine = DefaultCommandLine
	}
	if o.MemoryMB == 0 {
		o.MemoryMB = 768
	}
	if o.BootTimeout == 0 {
		o.BootTimeout = 6 * time.Minute
	}
}
