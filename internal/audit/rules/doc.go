// Package rules holds the audit rules that the product ships for Kubernetes workers, installs them with auditctl rule by rule, compares
// what is loaded with what is meant, and takes a rule out for a while that becomes so hot that audit would throttle the worker.
//
// The rules are text files in auditctl's own language, by group: volume (F), identity (A), Kubernetes (B), kernel (C), mining (D),
// tampering (E). Each has a key that begins with "ts-". Rules of others are left alone.
//
// `auditctl -R` stops at the first rule that fails (a folder that is not there), and leaves all behind it out. So rules are loaded one by
// one, and what failed is reported with its reason. Comparing is by meaning, not by text: see Rule.Meaning.
package rules
