package appraisal

import (
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/luks"
	"touchstone.dev/touchstone/internal/policy"
)

// RuleDataAtRest is the name of the rule on encrypted volumes.
const RuleDataAtRest = "boot-loader.data-at-rest"

// bootLoaderDataAtRest: is data at rest encrypted, with keys that only AIAS or the TPM gives? All of it is claimed by the worker; which Tang keys are at AIAS, AIAS
// knows itself.
func bootLoaderDataAtRest(in *Input) []Finding {
	v := &in.Claims.Facts.Volumes
	p := &in.Policy.Spec.BootLoader.DataAtRest
	if p.Volumes == "any" {
		return one(in.showVolumes(v))
	}
	var out []Finding
	switch {
	case v.Problem != "":
		out = one(unknown("what the worker says of its volumes cannot be read: %s", v.Problem).because("another version of the agent, or bytes that were changed", "update the trust agent"))
	case !v.Told:
		out = one(unknown("the worker does not say which volumes it has").because("the agent is older, or runs in a container that does not see the mounts of the host",
			"update the trust agent; in Kubernetes set agent.host.mountinfo, or run it on the host (docs/disks.md)"))
	default:
		if v.Cut {
			out = append(out, unknown("the worker has more volumes than its agent tells of").because("hundreds of mounts of disks", "unmount what is not needed"))
		}
		out = append(out, in.judgeVolumes(v)...)
	}
	if p.Volumes == "warn" {
		for i := range out {
			if f := &out[i]; f.Status == Fail || f.Status == Unknown {
				f.Status = Warn
			}
		}
	}
	return out
}

// showVolumes says what is there without judging it.
func (in *Input) showVolumes(v *claims.Volumes) Finding {
	f := Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "the worker does not say which volumes it has (the policy does not ask)"}
	switch {
	case v.Problem != "":
		f.Message = "what the worker says of its volumes cannot be read (the policy does not ask): " + v.Problem
		return f
	case !v.Told:
		return f
	}
	var open []string
	for i := range v.All {
		if w := &v.All[i]; w.Encrypted != claims.EncryptedYes && !w.Media {
			open = append(open, w.Point())
		}
	}
	f = pass(claims.Claimed, "%d of %d volumes are encrypted (the policy does not ask)", len(v.All)-len(open), len(v.All))
	if len(open) > 0 {
		f.Message += "; not, or not known: " + list(open)
	}
	return f
}

func (in *Input) judgeVolumes(v *claims.Volumes) []Finding {
	var out []Finding
	asked := 0
	for i := range v.All {
		if w := &v.All[i]; in.asked(v, w) {
			asked++
			out = append(out, in.judgeVolume(w)...)
		}
	}
	switch {
	case len(v.All) == 0:
		return append(out, pass(claims.Claimed, "no volume of a local disk is in use"))
	case len(out) == 0:
		return append(out, pass(claims.Claimed, "%d of %d volumes must be encrypted, and are", asked, len(v.All)))
	}
	return out
}

// asked reports whether a volume must be encrypted. A pattern without * is a path, and means the volume that holds it.
func (in *Input) asked(all *claims.Volumes, v *claims.DataVolume) bool {
	p := &in.Policy.Spec.BootLoader.DataAtRest
	if v.Swap {
		return slices.Contains(p.Mounts, policy.SwapSpace) && !slices.Contains(p.Except, policy.SwapSpace)
	}
	for _, point := range v.Points {
		if slices.Contains(p.Mounts, point) {
			return true // by its name: no exception and no type of file system takes it out
		}
		if !v.Media && policy.MatchAny(p.Mounts, point) && !policy.MatchAny(p.Except, point) {
			return true
		}
	}
	for _, m := range p.Mounts {
		if m != policy.SwapSpace && !strings.Contains(m, "*") && all.Holder(m) == v {
			return true
		}
	}
	return false
}

func (in *Input) judgeVolume(v *claims.DataVolume) []Finding {
	const bind = "encrypt it (cryptsetup reencrypt --encrypt), and bind it: `touchstone disk bind NODE`; what may stay open, name in bootLoader.dataAtRest.except"
	what := fmt.Sprintf("volume %s (%s, %s)", v.Point(), v.Device, v.Type)
	switch v.Encrypted {
	case claims.EncryptedYes:
	case claims.EncryptedNo:
		return one(fail(claims.Claimed, "%s is not encrypted: %s", what, v.Why).expect("encrypted", strings.Join(v.Layers, " on ")).because("the volume was set up without encryption", bind))
	default:
		return one(unknown("whether %s is encrypted cannot be told: %s", what, v.Why).expect("encrypted", strings.Join(v.Layers, " on ")).because("a layer that the agent does not see through", bind))
	}
	if len(in.Policy.Spec.BootLoader.DataAtRest.Keys) == 0 {
		return nil
	}
	var out []Finding
	for i := range v.Containers {
		out = append(out, in.judgeKeys(what, &v.Containers[i])...)
	}
	return out
}

// judgeKeys holds the key slots of one LUKS volume against what the policy accepts.
func (in *Input) judgeKeys(what string, c *claims.Container) []Finding {
	p := &in.Policy.Spec.BootLoader.DataAtRest
	known := in.Claims.DiskKeys
	expected := "opens by " + strings.Join(p.Keys, " or ") + ", passphrases: " + p.Passphrases
	observed := strings.Join(known.Bindings(c), "; ")
	if c.Header == nil {
		return one(unknown("what opens %s cannot be told: %s", what, c.Why).expect(expected, c.Why).because("the header of the volume is not on "+c.Device+", or the agent may not read it",
			"let the agent read the block devices (DeviceAllow=block-* r in its unit); in a pod it cannot: run it on the host"))
	}
	finding := func(f Finding, cause, remedy string) []Finding {
		return one(f.expect(expected, observed).because(cause, remedy))
	}
	bound, passphrases := false, 0
	for i := range c.Header.Slots {
		s := &c.Header.Slots[i]
		if claims.Passphrase(s) {
			passphrases++
			continue
		}
		for j := range s.Ways {
			w := &s.Ways[j]
			switch {
			case w.Needs(in.accepts):
				bound = true
			case undecided(w, known):
				return finding(unknown("what opens %s cannot be told: key slot %d opens by %s", what, s.Number, known.Text(w)),
					"only AIAS knows its keys, or a token that is not known here", "attest online; see `touchstone disk volumes NODE`")
			default:
				return finding(fail(claims.Claimed, "%s opens by %s (key slot %d), which the policy does not accept", what, known.Text(w), s.Number),
					"it was bound to something else, or to keys that are no more at AIAS", fmt.Sprintf("clevis luks unbind -d %s -s %d, and bind it: `touchstone disk bind NODE`", c.Device, s.Number))
			}
		}
	}
	switch {
	case !bound:
		return finding(fail(claims.Claimed, "%s opens only by a passphrase or a key file", what), "it was never bound", "bind it: `touchstone disk bind NODE`, then the line that it prints, on "+c.Device)
	case p.Passphrases == "none" && passphrases > 0:
		return finding(fail(claims.Claimed, "%s opens by a passphrase, too", what), "the one that it was made with was not removed", "cryptsetup luksKillSlot "+c.Device+" SLOT, when the binding works")
	case p.Passphrases == "escrowed" && passphrases > 0 && (passphrases > 1 || !known.Keeps(c.UUID)):
		return finding(fail(claims.Claimed, "%s has %d passphrases, and AIAS keeps %s", what, passphrases, map[bool]string{true: "one", false: "none"}[known.Keeps(c.UUID)]),
			"the one that it was made with was not removed, or not escrowed", "`touchstone disk escrow NODE "+c.UUID+"`, and cryptsetup luksKillSlot "+c.Device+" SLOT for the others")
	}
	return nil
}

// accepts reports whether the policy accepts what a way needs.
func (in *Input) accepts(w *luks.Way) bool {
	word := w.Pin
	if w.Pin == luks.PinTang && in.Claims.DiskKeys.Ours(w) {
		word = policy.KeyAIAS
	}
	return slices.Contains(in.Policy.Spec.BootLoader.DataAtRest.Keys, word)
}

// undecided reports whether somebody who knows more could accept the way.
func undecided(w *luks.Way, known *claims.DiskKeys) bool {
	open := false
	w.Leaves(func(leaf *luks.Way) {
		open = open || leaf.Pin == luks.PinUnknown || leaf.Pin == luks.PinTang && known == nil
	})
	return open
}
