package appraisal

import (
	"fmt"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/policy"
)

// runtimeDetections: no misuse that still counts was found in the worker's audit events. Nothing is said of workers without detections: whether
// their events come at all is runtime.audit-chain's.
func runtimeDetections(in *Input) []Finding {
	var out []Finding
	ignored := 0
	for i := range in.Claims.Detections {
		d := &in.Claims.Detections[i]
		effect := in.Policy.Spec.Runtime.Detections.Effect(d.Rule, d.Severity, d.Effect)
		if effect == policy.Ignore {
			ignored++
			continue
		}
		f := fail(claims.Claimed, "%s; %s", d.What, d.Who)
		if effect == policy.Warn {
			f.Status = Warn
		}
		out = append(out, f.expect("no detection", seen(d)).because(causes(d), remedy(d)))
	}
	if len(out) == 0 && ignored > 0 {
		out = one(pass(claims.Claimed, "detections in the audit events that are not judged (policy): %d", ignored))
	}
	return out
}

func seen(d *claims.Detection) string {
	times := "once"
	if d.Count > 1 {
		times = fmt.Sprintf("%d times since %s", d.Count, stamp(d.First))
	}
	return fmt.Sprintf("detection %s of rule %s (%s): %s, last at %s (event %s)", d.ID, d.Rule, d.Severity, times, stamp(d.Last), d.Event)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func causes(d *claims.Detection) string {
	s := "misuse"
	if len(d.Techniques) > 0 {
		s += " (MITRE ATT&CK " + strings.Join(d.Techniques, ", ") + ")"
	}
	if d.Harmless != "" {
		s += "; or: " + d.Harmless
	}
	return s
}

func remedy(d *claims.Detection) string {
	s := d.Remedy
	if s == "" {
		s = "find out who did it"
	}
	return fmt.Sprintf("%s. It counts until %s; `touchstone audit clear NODE %s --reason ...` ends it at once", s, d.Until, d.ID)
}
