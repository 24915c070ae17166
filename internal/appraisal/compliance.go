package appraisal

import (
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/compliance/verdict"
)

const runScan = "`touchstone compliance scan NODE` asks the worker for one; its agent's log says why there is none: `journalctl -u trust-agent`"

// runtimeCompliance: the newest compliance scan shows what the policy demands.
func runtimeCompliance(in *Input) []Finding {
	c, p := in.Claims.Compliance, &in.Policy.Spec.Runtime.Compliance
	none := c == nil || c.Scan == nil && c.Error == ""
	switch {
	case none && p.Mode == "any":
		return nil // as on workers that are not scanned
	case none:
		return in.demanded(one(unknown("there is no compliance scan of this worker").because("scans are not configured in the agent, or none has been made yet", runScan)))
	}
	var out []Finding
	if c.Error != "" {
		out = append(out, unknown("the last compliance scan came to no result").expect("a result", c.Error).because(
			"OpenSCAP failed, or its result could not be relied on: an error is no pass", "mend what it says, then "+runScan))
	}
	if f, ok := statedFaults[c.Stated]; ok {
		out = append(out, f.expect(c.SHA256, "").because("somebody sent a scan in the worker's name, the disk of the worker was put back, or its agent is an older one", "scan again: "+runScan))
	}
	if c.Scan != nil {
		out = append(out, in.scanned(c.Scan)...)
	}
	return in.demanded(out)
}

// statedFaults are states of what the agent signed that do not pass.
var statedFaults = map[claims.ComplianceStated]Finding{
	claims.StatedOther: fail(claims.Proven, "the newest compliance scan at AIAS is none of those that the worker signed"),
	claims.StatedNone:  fail(claims.Proven, "AIAS has a compliance scan of the worker, which signs that it made none"),
}

// demanded makes warnings, or findings that pass, of what the policy does not demand.
func (in *Input) demanded(fs []Finding) []Finding {
	for i := range fs {
		f := &fs[i]
		if f.Status == Pass || f.Status == Warn {
			continue
		}
		switch in.Policy.Spec.Runtime.Compliance.Mode {
		case "any":
			f.Status, f.Message = Pass, f.Message+" (not judged: policy)"
		case "warn":
			f.Status = Warn
		}
	}
	return fs
}

// scanned judges a scan that came to a result.
func (in *Input) scanned(s *verdict.Scan) []Finding {
	j := verdict.Judge(in.Policy.Spec.Runtime.Compliance.Rules(), s, in.Now)
	var out []Finding
	for _, p := range j.Problems {
		out = append(out, fail(claims.Claimed, "%s", p.Message).expect(p.Expected, p.Observed).because(p.Cause, p.Remedy))
	}
	for _, p := range j.Waived {
		out = append(out, warn(claims.Claimed, "%s (waived)", p.Message).expect(p.Expected, p.Observed).because(p.Cause, p.Remedy))
	}
	if j.Good() {
		out = append(out, pass(claims.Claimed, "the compliance scan shows what the policy demands: %s", s.Summary()).expect("", s.Profile))
	}
	return out
}
