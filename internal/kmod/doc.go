// Package kmod reads signed Linux kernel modules and the kernels that carry the keys to verify them.
//
// A module ends with its signature: CMS data, a trailer of 12 bytes and a magic string (Documentation/admin-guide/module-signing.rst,
// include/linux/module_signature.h, scripts/sign-file.c of Linux). Distributions sign modules with a key that is made during the build
// and thrown away: its certificate exists only inside the kernel image, so the package unpacks that too (Documentation/arch/x86/boot.rst,
// drivers/firmware/efi/libstub/zboot-header.S).
//
// The package is pure: bytes in, values out. All input is taken as hostile: sizes are bounded, nothing panics.
package kmod
