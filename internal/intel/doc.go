// Package intel reads what a machine says of Intel Boot Guard and Intel TXT: the status registers of the management engine, the Boot
// Guard MSR, and the events of the firmware log.
//
// The first two are claims: a kernel reads them and nothing signs them, so a compromised host can say what it likes. The log is proven as
// far as its replay agrees with the quoted PCRs: the startup locality is part of the value of PCR 0, and PCR 17 and 18 can only be extended
// after a dynamic launch. Text in the log ("Boot Guard Measured S-CRTM") stays a label. Fields that can't be known say so: the zero value of
// Answer is Unknown, never "no".
//
// Sources: Intel publishes no complete description. Register layouts are those that public code agrees on: coreboot (src/soc/intel/common, cse_spec.h
// and cse_spec.c), slimbootloader (BootGuardLib, CpuRegs.h), 9elements' converged-security-suite (pkg/provisioning/bootguard), fwupd (pci-mei) and
// canonical's secboot (efi/preinstall). TXT event types are those of Intel's TXT Software Development Guide.
//
// The package is pure: no I/O, no clock; all input is hostile and bounded.
package intel
