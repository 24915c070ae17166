// Package agent is the Attester of RFC 9334: the daemon on every worker that proves, with the TPM, how the worker booted and
// what it runs.
//
// The agent dials out and listens on nothing. It enrols once (TPM credential activation), then sends Evidence: when the interval
// that AIAS names is over, and at once when the IMA list grows or a kernel module appears. Evidence is incremental: the
// firmware log and the facts travel only when they changed, the IMA list only from where AIAS verified it to.
//
// The order matters: the quote is made first and the IMA list read after it, so that the list always reaches at least as far as
// the quote; AIAS takes the longest prefix that replays to the quoted PCR 10.
//
// What it costs. The kernel offers no event for a growing IMA list (securityfs has neither inotify nor poll), so the agent
// reads runtime_measurements_count, a file of a few bytes, four times a second with jitter, and the names in /proc/modules every
// fourth time. Both come from memory; a look at both costs about 0.1 ms (BenchmarkWatch), so less than 0.05 % of one core.
//
// Private keys never leave the TPM. The state folder holds certificates and names only.
package agent
