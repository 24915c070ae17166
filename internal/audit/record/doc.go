// Package record reads what the Linux kernel's audit subsystem says: one record (one line of auditd's log, or one netlink message), and
// the event that records with the same time and serial number make up.
//
// A record is bytes; nothing is decoded before somebody asks for it, and no map is made. Three questions must not be mixed up, so each
// has accessors of its own:
//
//   - Field, Text, Number: what the kernel stamped. Only this is evidence of who did what.
//   - Claimed, ClaimedText: what a program wrote into the msg='...' of a record of user space. Whoever has CAP_AUDIT_WRITE can write
//     anything there, quotes and names of fields included; so all from the first msg=' to the end of the record counts as claimed.
//   - Resolved: names that auditd appended on the worker (log_format=ENRICHED). A claim, too.
//
// Formats: linux/audit.h, kernel/audit.c, kernel/auditsc.c (audit_log_untrustedstring: a string that holds a quote, a space, or a byte
// outside 0x21 to 0x7e is written as hex without quotes), audit-userspace (log format, enrichment behind byte 0x1d).
//
// Numbers in socket addresses are read as little-endian machines write them. Limits are MaxLine, MaxRecords and MaxEvent.
package record

// Limits of what is taken as one line, one event. The kernel's records are at most 8970 bytes; auditd's names make them a bit longer.
const (
	MaxLine    = 32 << 10
	MaxNode    = 255
	MaxRecords = 4096
	MaxEvent   = 8 << 20
	MaxArgs    = 16384 // arguments of one execve that Argv gives
)
