package appraisal

import (
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/claims"
)

// tagFault is what a state of the asset tag means that does not pass.
type tagFault struct {
	status                 Status
	provenance             claims.Provenance
	message, cause, remedy string
}

const tagRemedy = "the agent writes the newest tag in its next round; find out who writes the NV index of this TPM, and treat the worker as compromised if nobody should"

// tagFaults: a tag that is wrong fails, also a missing one when the time to write it is over, or who holds a wrong one would hide it. Before that a
// missing one is a warning: no tags count meanwhile.
var tagFaults = map[claims.TagState]tagFault{
	claims.TagAbsent: {Warn, claims.NotKnown, "asset tags were issued, and the TPM certifies none yet: none count until it does",
		"the agent could not write the NV index, or somebody removed it", "look at the agent's log on the worker: `journalctl -u trust-agent`"},
	claims.TagOverdue: {Fail, claims.NotKnown, "asset tags were issued long ago, and the TPM still certifies none",
		"the agent is too old to know asset tags, cannot write the NV index (authorization of the owner, an index of another program, no space), or hides what the index holds",
		"look at the agent's log on the worker; nvTag in its configuration names index and authorization; `touchstone tag clear NODE` takes the tags back"},
	claims.TagUncertified: {Fail, claims.NotKnown, "the certificate of the asset tag is not by this TPM for this challenge",
		"an old certificate, one of another TPM or of another index was sent", "attest again; if it stays, treat the worker as compromised"},
	claims.TagIndex: {Fail, claims.Proven, "the asset tag is in an NV index that is not as it must be",
		"somebody else defined the index, so that others may write it", "remove the index (tpm2_nvundefine), or choose another one with nvTag.index in the agent's configuration"},
	claims.TagForged: {Fail, claims.Proven, "the asset tag in the TPM was not signed by this AIAS", "the tag was forged, damaged, or is of another AIAS", tagRemedy},
	claims.TagCopied: {Fail, claims.Proven, "the asset tag in the TPM was issued for another worker", "the tag was copied from another worker", tagRemedy},
	claims.TagOld:    {Fail, claims.Proven, "the asset tag in the TPM is an old one of this worker", "the tag was rolled back to one that was replaced since", tagRemedy},
	claims.TagAhead: {Fail, claims.Proven, "the asset tag in the TPM is one that AIAS does not know any more",
		"the database of AIAS was put back to an older state", "set the tags anew: `touchstone tag set NODE NAME=VALUE...`"},
}

// runtimeAssetTag: the TPM certifies the asset tag that AIAS issued for it last. What the worker's own configuration says is shown, and counts for
// nothing.
func runtimeAssetTag(in *Input) []Finding {
	out := in.issuedTag()
	tags := in.Claims.Facts.AssetTag
	if len(tags) > 0 {
		var s []string
		for k, v := range tags {
			s = append(s, k+"="+v)
		}
		slices.Sort(s)
		out = append(out, pass(claims.Claimed, "asset tags that the worker claims: %s", strings.Join(s, ", ")))
	}
	if len(out) == 0 {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "no asset tags"})
	}
	return out
}

// issuedTag judges the tag in the TPM; nothing when none was issued.
func (in *Input) issuedTag() []Finding {
	t := &in.Claims.AssetTag
	switch t.State {
	case claims.TagNone:
		return nil
	case claims.TagProven:
		return one(pass(claims.Proven, "asset tags, certified by the TPM: %s", assettag.Text(t.Tags)))
	case claims.TagShown:
		return one(pass(claims.Proven, "the TPM certifies an asset tag; only its AIAS knows which").expect("", t.Observed))
	case claims.TagNotTold:
		text := "new asset tags are on their way to the TPM: they count when it has certified them"
		if len(t.Tags) > 0 {
			text += "; unchanged since the last ones: " + assettag.Text(t.Tags)
		}
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: text})
	}
	f, ok := tagFaults[t.State]
	if !ok {
		return one(unknown("asset tag in state %q, which this rule does not know", t.State))
	}
	return one(Finding{Status: f.status, Provenance: string(f.provenance), Message: f.message}.expect(t.Expected, t.Observed).because(f.cause, f.remedy))
}
