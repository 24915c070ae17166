// Package audit tests audit events from end to end: the real auditd, an agent with a software TPM as a process of its own, and AIAS.
package audit
