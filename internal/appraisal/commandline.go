package appraisal

import (
	"bytes"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/policy"
)

// kernelCommandLine: every text that may be the kernel's command line has the required words, none of the forbidden ones and, where the policy
// lists them, only allowed ones.
func kernelCommandLine(in *Input) []Finding {
	lines, prov, f, ok := in.commandLines()
	if !ok {
		return one(f)
	}
	var out []Finding
	seen := make(map[string]bool)
	for _, l := range lines {
		if seen[l.Text] {
			continue
		}
		seen[l.Text] = true
		out = append(out, judgeCommandLine(l, prov, &in.Policy.Spec.Kernel.CommandLine)...)
	}
	out = append(out, in.runningCommandLine(lines)...)
	if !slices.ContainsFunc(out, func(f Finding) bool { return f.Status != Pass }) {
		out = one(pass(prov, "command line: %s", lines[0].Text).at(lines[0].Event))
	}
	return out
}

// commandLines returns the candidates: GRUB's (PCR 8), or the claimed one where a digest proves it: the .cmdline section of a unified kernel image
// (PCR 11), or the load options that the kernel's EFI stub measured (PCR 9).
func (in *Input) commandLines() ([]claims.Text, claims.Provenance, Finding, bool) {
	f, bad := in.unproven("the command line cannot be told", 8)
	if bad {
		return nil, "", f, false
	}
	if lines := in.Claims.Boot.AllCommandLines(); len(lines) > 0 {
		return lines, claims.Proven, Finding{}, true
	}
	said := in.Claims.Facts.CommandLine
	if said == "" {
		return nil, "", unknown("no command line was measured as text, and the worker did not say its own"), false
	}
	b := in.Claims.Boot
	if in.Claims.Proves(9) {
		for i := range b.StubTags {
			t := &b.StubTags[i]
			if t.Name == claims.StubLoadOptions && (hashes(b.Bank, utf16NUL(said), t.Digest) || hashes(b.Bank, utf16NUL(said+" "), t.Digest)) {
				return []claims.Text{{Event: t.Event, Text: said}}, claims.Proven, Finding{}, true
			}
		}
	}
	// PCR 12 holds what was added to the command line from outside the image.
	if t := b.Section(".cmdline"); t != nil && in.Claims.Proves(11, 12) && len(b.StubExtra) == 0 {
		if hashes(b.Bank, []byte(said), t.Digest) || hashes(b.Bank, []byte(said+"\n"), t.Digest) || hashes(b.Bank, []byte(said+"\x00"), t.Digest) {
			return []claims.Text{{Event: t.Event, Text: said}}, claims.Proven, Finding{}, true
		}
	}
	return nil, "", unknown("the command line is known only from what the worker says").expect("a measured command line", said), false
}

func judgeCommandLine(l claims.Text, prov claims.Provenance, want *policy.CommandLine) []Finding {
	words, effective := claims.Words(l.Text), claims.Parameters(l.Text)
	var out []Finding
	add := func(expected, observed, format string, a ...any) {
		out = append(out, fail(prov, format, a...).at(l.Event).expect(expected, observed).because(
			"grub.cfg or the boot entry was edited, or a person edited the entry at the console", "restore the command line (/etc/default/grub, update-grub) and reboot, or change the policy"))
	}
	for _, r := range want.Required {
		if !slices.ContainsFunc(effective, func(w string) bool { return policy.Match(r, w) }) {
			add(r, l.Text, "the command line lacks %s", r)
		}
	}
	for _, w := range words {
		switch {
		case forbidden(want.Forbidden, w):
			add("not "+w, w, "the command line has the forbidden word %s", w)
		case len(want.Allowed) > 0 && !policy.MatchAny(want.Allowed, w):
			add("only allowed words", w, "the command line has the word %s, which is not allowed", w)
		}
	}
	if out == nil {
		out = one(pass(prov, "command line: %s", l.Text).at(l.Event))
	}
	return out
}

// forbidden compares words as they stand, and as the kernel reads them.
func forbidden(patterns []string, w string) bool {
	name := claims.ParameterName(w)
	return slices.ContainsFunc(patterns, func(p string) bool { return policy.Match(p, w) || policy.Match(claims.ParameterName(p), name) })
}

// runningCommandLine holds what the running kernel says against what was measured: another one means that a kernel was started by kexec, or that
// the worker does not tell the truth.
func (in *Input) runningCommandLine(measured []claims.Text) []Finding {
	said := claims.Words(in.Claims.Facts.CommandLine)
	if len(said) == 0 {
		return nil
	}
	if strings.HasPrefix(said[0], "BOOT_IMAGE=") {
		said = said[1:]
	}
	for _, m := range measured {
		w := claims.Words(m.Text)
		if len(w) > 0 && strings.HasPrefix(w[0], "BOOT_IMAGE=") {
			w = w[1:]
		}
		if slices.Equal(w, said) {
			return nil
		}
	}
	return one(fail(claims.Claimed, "the running kernel says another command line than the measured one").expect(measured[len(measured)-1].Text, in.Claims.Facts.CommandLine).because(
		"another kernel was started by kexec, or the facts are of another boot", "reboot the worker through its firmware"))
}

// utf16NUL encodes text as the EFI load options are: UTF-16, little endian, with final NUL. Command lines are ASCII.
func utf16NUL(s string) []byte {
	var b bytes.Buffer
	for _, r := range s {
		b.WriteByte(byte(r))
		b.WriteByte(byte(r >> 8))
	}
	b.Write([]byte{0, 0})
	return b.Bytes()
}
