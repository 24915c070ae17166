// Package machine is a captured machine: a software TPM that holds what a real machine measured while it booted, and a folder that
// stands for its file system, with the files that its kernel published. The product's agent attests it as it would the real one. It
// serves the demo and the tests.
//
// A [Boot] is read from a folder of the golden corpus (test/boots/corpus). [Machine.Boot] resets the TPM, extends into it what the
// boot extended, and lays the files out; [Machine.Execute] then does what the kernel does when a program runs for the first time.
// Limits: the sha256 bank only; two machines with the same boot differ in their TPM, their SMBIOS UUID and their boot_id.
package machine
