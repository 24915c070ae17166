// Package vm boots real machines for the end-to-end tests: QEMU without hardware acceleration, OVMF with Secure Boot, a
// software TPM, and then Debian's own shim, GRUB and signed kernel, so that every measurement in the TPM is a true one.
//
//	lab, err := vm.Open(ctx, vm.Config{Log: t.Logf})            // installs, downloads, builds; cached by content
//	m, err := lab.NewMachine(vm.Options{Name: "worker-1"})      // a machine with a TPM of its own
//	defer m.Close()
//	guest, err := m.Start(ctx)                                  // returns when /init answers
//	log, err := guest.ReadFile(ctx, vm.EventLogPath)
//	guest, err = m.Reboot(ctx)                                  // same TPM, same firmware variables
//	err = m.Stop(ctx)
//	err = m.Change(func(o *vm.Options) { o.CommandLine += " mitigations=off" })
//	guest, err = m.Start(ctx)                                   // the same worker, booted otherwise
//
// What a machine boots is said by [Options]: kernel package, command line, firmware state ([Firmware]), who signed the kernel,
// a unified kernel image instead of shim and GRUB, files in the initrd (measured) and files on the job disk (not measured).
// A boot that the firmware or a boot loader refuses ends [Machine.Start] with a [*BootError] that holds the refusal and the console.
//
// The guest reaches the host's loopback as [HostAddress]. With /bin/trust-agent in [Options.Files] and /etc/trust-agent.yaml in
// Files or JobFiles, /init runs "trust-agent run --config /etc/trust-agent.yaml" and starts it again when it ends. Folders named in
// [Options.Persist] live through [Machine.Reboot], as a disk would keep them.
//
// The recipe follows the TCG PC Client Platform Firmware Profile as OVMF, shim and GRUB implement it. Limits: x86-64 and Debian
// hosts only; software emulation, about 17 CPU seconds a boot by shim and GRUB; one machine at a time is kind to small hosts.
package vm
