// Package result is the Attestation Result: what AIAS signs about a worker, and what a Relying Party checks.
//
// It is a JWT (RFC 7519) signed with ES256, shaped as an EAT Attestation Result (draft-ietf-rats-ear): eat_profile, iat,
// ear.verifier-id and one submodule "worker" with ear.status and the AR4SI trustworthiness vector (draft-ietf-rats-ar4si), mapped from
// the five levels. The private claim "touchstone" carries the five levels themselves. The algorithm is fixed when a Result is
// parsed, never taken from its header.
package result

import (
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
)

// Profile is the eat_profile of a Result.
const Profile = "tag:touchstone.dev,2026:attestation-result"

// Submodule is the name of the only submodule.
const Submodule = "worker"

// Developer is the developer in ear.verifier-id.
const Developer = "https://touchstone.dev"

// Values of ear.status (draft-ietf-rats-ear, trustworthiness tiers).
const (
	Affirming       = "affirming"
	Warning         = "warning"
	Contraindicated = "contraindicated"
)

// Claims of a trustworthiness vector that are used here (draft-ietf-rats-ar4si, 2.3.4), and values of their tiers.
const (
	noClaim         = 0
	tierAffirming   = 2
	tierWarning     = 32
	tierContra      = 96
	claimIdentity   = "instance-identity"
	claimHardware   = "hardware"
	claimConfig     = "configuration"
	claimExecutable = "executables"
	claimFiles      = "file-system"
)

// Result is what AIAS says about one node at one moment.
type Result struct {
	Node         string
	AKName       string // TPM Name of the attestation key, hexadecimal
	Trusted      bool
	Levels       []Level // five, in order
	Snapshot     string  // policy and references that judged
	ResetCount   uint32  // of the TPM: changes with each boot
	RestartCount uint32
	SoftwareTPM  bool   // the TPM is a program
	EKSHA256     string // of the endorsement key's DER SubjectPublicKeyInfo, hexadecimal
	// Tags are the asset tags that AIAS signed for this TPM and the TPM certified that it holds: proven.
	Tags map[string]string
	// Machine is what the node's own agent says that a Relying Party needs to know the node by; claimed, over a connection that only this TPM
	// can open.
	Machine Machine
	// Compliance is the newest compliance scan in short, as the node sent it and AIAS read it; nil when there is none. What it means is in level 5.
	Compliance *Compliance
	// Audit is what the node's audit events come to; nil when nothing is known of any.
	Audit   *Audit
	ID      string    // jti: unique
	Build   string    // version of AIAS
	Issued  time.Time // to the second
	Expires time.Time // to the second; the Result means nothing from then on
}

// Machine is what tells one machine, its boot and its kubelet from another, as its agent says.
type Machine struct {
	SystemUUID string `json:"system-uuid,omitempty"` // SMBIOS UUID, lower case, as a kubelet reports it
	BootID     string `json:"boot-id,omitempty"`     // the kernel's random boot_id, as a kubelet reports it
	// KubeletKeys are the SHA-256, hexadecimal, of the DER SubjectPublicKeyInfo of the keys that the node's kubelet has or asks its first
	// certificate for, and of the DER certificate that it has: a certificate for the node's name is signed for such a key, or renewed for who
	// shows such a certificate (a kubelet keeps the key of a renewal in memory), and for nobody else.
	KubeletKeys []string `json:"kubelet-keys,omitempty"`
}

// Compliance is a compliance scan in short.
type Compliance struct {
	Profile   string    `json:"profile"`
	Content   string    `json:"content"` // SHA-256 of the data stream, hexadecimal
	Tool      string    `json:"tool"`    // version of oscap
	At        time.Time `json:"at"`
	Passed    int       `json:"passed"`
	NotPassed int       `json:"not-passed"`
	Score     float64   `json:"score"` // per cent
	// Failed is how many rules did not pass, by severity: high, medium, low. What could not be decided has not passed.
	Failed map[string]int `json:"failed,omitempty"`
	// Status is the worst that the policy finds in the scan; empty: AIAS has not judged it yet.
	Status appraisal.Status `json:"status,omitempty"`
}

// Audit is the audit of a node in short.
type Audit struct {
	// Chain is the worst that the policy finds in the chain of audit events that the node signed, and in how it audits; empty: nothing.
	Chain appraisal.Status `json:"chain,omitempty"`
	// Detections are how many detections of misuse count, by severity.
	Detections map[string]int `json:"detections,omitempty"`
}

// Level is the verdict of one level.
type Level struct {
	Level  int              `json:"level"`
	Name   string           `json:"name"`
	Status appraisal.Status `json:"status"`
	Reason string           `json:"reason,omitempty"`
}

// Status returns the ear.status of r: affirming only when it is trusted without a warning.
func (r *Result) Status() string {
	if !r.Trusted {
		return Contraindicated
	}
	for _, l := range r.Levels {
		if l.Status != appraisal.Pass {
			return Warning
		}
	}
	return Affirming
}

// Vector returns the AR4SI trustworthiness vector: level 1 speaks for the hardware and its firmware, level 2 for the configuration,
// levels 3 and 4 for the executables, level 5 for the file system. The identity is that of an enrolled TPM, always.
func (r *Result) Vector() map[string]int {
	v := map[string]int{claimIdentity: tierAffirming}
	for _, l := range r.Levels {
		claim, ok := map[int]string{1: claimHardware, 2: claimConfig, 3: claimExecutable, 4: claimExecutable, 5: claimFiles}[l.Level]
		if !ok {
			continue
		}
		value := tier(l.Status)
		if have, ok := v[claim]; ok {
			value = worse(have, value)
		}
		v[claim] = value
	}
	return v
}

func tier(s appraisal.Status) int {
	switch s {
	case appraisal.Pass:
		return tierAffirming
	case appraisal.Warn:
		return tierWarning
	case appraisal.Fail:
		return tierContra
	}
	return noClaim
}

// worse returns the value that says less for the worker; no claim is worse than a warning and better than a contraindication.
func worse(a, b int) int {
	rank := func(v int) int {
		switch v {
		case tierAffirming:
			return 0
		case tierWarning:
			return 1
		case noClaim:
			return 2
		}
		return 3
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}
