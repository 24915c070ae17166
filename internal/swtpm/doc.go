// Package swtpm runs software TPMs: one swtpm process for each, spoken to over a unix socket. It serves the demo and the tests.
//
// A TPM that is made with [Options.EKCA] gets endorsement keys with certificates from a local authority (swtpm_setup with
// swtpm_localca), as a manufacturer would write them. Its state survives [Process.Reboot] and a later [Start] with the same
// folder. The programs swtpm, swtpm_setup and swtpm_localca must be installed (Debian: swtpm, swtpm-tools).
package swtpm
