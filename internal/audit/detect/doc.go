// Package detect finds misuse in audit events: Sigma rules (package sigma) over record.Event, the rules that this product ships, and what each
// of them does to level 5.
//
// Rules look at what the kernel stamped. What a program of user space wrote into msg='...' has field names of its own ("msg.acct"), which only
// rules may use that say so ("userspace: true"), and such a rule never does more than warn: whoever has CAP_AUDIT_WRITE can write anything there.
// Where an event comes from (pod, unit) is the agent's word, and a rule that excepts somebody because of it says so.
//
// A Set is compiled once and shared by all nodes; a Node holds what correlations and budgets remember of one of them, bounded.
package detect
