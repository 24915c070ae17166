// Package uefi reads what UEFI Secure Boot works with: signature databases and their revocation updates, PE images and their
// Authenticode signatures, the certificates inside shim, and SBAT levels.
//
// Sources: UEFI Specification 2.10, 8.2.2 (authenticated variables) and 32.4.1 (signature database); Microsoft PE Format
// Specification and "Windows Authenticode Portable Executable Signature Format"; SBAT.md and shim.c of rhboot/shim.
//
// The package is pure: bytes in, values out. All input is taken as hostile: sizes are bounded (see the Max constants), trailing
// bytes are refused, nothing panics. Returned values alias the input and must not outlive a buffer that is reused.
// Certificate dates are not judged anywhere: firmware does not judge them either.
package uefi
