// Package source reads the audit events of this machine beside auditd, without disturbing it.
//
// Two readers work together. The multicast group of the kernel (AUDIT_NLGRP_READLOG) gives each event within a millisecond, but the
// kernel drops what a full socket cannot take. auditd's log has all that auditd got, but late. So events are handed out as soon as
// either has them, and told apart by their serial number, which the kernel gives once a boot: each comes out exactly once. A number that
// neither has, some seconds after the log was read to its end, is a Gap.
//
// What was handed out is remembered in a checkpoint (Commit): numbers, and the place in the log, found again by device, inode and first
// bytes through rotations. After a restart the log is read from there, and what is not in it any more is a Gap.
//
// A watcher asks the kernel (AUDIT_GET, AUDIT_LIST_RULES) every second whether audit is on, auditd is there, the rules are the same and
// nothing was lost.
//
// Limits: a record that the kernel lost before it had a number is known only by the kernel's counter (Gap with Records). Events that
// came by multicast lack the names that auditd resolves. Needs CAP_AUDIT_READ, CAP_AUDIT_CONTROL (the watcher) and the log's permissions,
// in the initial user namespace.
package source
