package verdict

import (
	"testing"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// good is all that trust needs.
func good() Input {
	return Input{
		Node: Node{Name: "w1", UID: "uid", Created: now.Add(-time.Hour), SystemUUID: "ABC", BootID: "boot"},
		Said: Said{Trust: protocol.Trusted, Result: &result.Result{
			Node: "w1", AKName: "ak", Trusted: true, Issued: now.Add(-time.Minute), Expires: now.Add(time.Minute), Machine: result.Machine{SystemUUID: "abc", BootID: "boot"},
			Levels: []result.Level{{Level: 4, Name: "kernel", Status: appraisal.Fail, Reason: "miner"}},
		}},
		Now: now,
	}
}

func TestJudge(t *testing.T) {
	before := &v1alpha1.NodeBinding{UID: "uid", AKName: "ak"}
	tests := []struct {
		name   string
		change func(*Input)
		code   string
		valid  bool
	}{
		{"good", func(*Input) {}, CodeTrusted, true},
		{"known key", func(in *Input) { in.Bound = before }, CodeTrusted, true},
		{"nothing", func(in *Input) { *in = Input{} }, CodeNoResult, false},
		{"nothing but a time", func(in *Input) { in.Said = Said{} }, CodeNoResult, false},
		{"empty result", func(in *Input) { in.Said.Result = &result.Result{} }, CodeExpired, false},
		{"removed", func(in *Input) { in.Said.Removed = true }, CodeNotEnrolled, false},
		{"refused", func(in *Input) { in.Said = Said{Problem: "no key"} }, CodeRefused, false},
		{"expired when it came", func(in *Input) { in.Said = Said{Problem: "old", Expired: true} }, CodeExpired, false},
		{"expires now", func(in *Input) { in.Said.Result.Expires = now }, CodeExpired, false},
		{"a moment before", func(in *Input) { in.Said.Result.Expires = now.Add(1) }, CodeTrusted, true},
		{"from the future", func(in *Input) { in.Said.Result.Issued = now.Add(61 * time.Second) }, CodeRefused, false},
		{"clocks differ a little", func(in *Input) { in.Said.Result.Issued = now.Add(59 * time.Second) }, CodeTrusted, true},
		{"other name", func(in *Input) { in.Said.Result.Node = "w2" }, CodeOtherNode, false},
		{"renamed node", func(in *Input) { in.Node.Name = "w2" }, CodeOtherNode, false},
		{"no UUID of the kubelet", func(in *Input) { in.Node.SystemUUID = "" }, CodeNoMachine, false},
		{"no UUID of the agent", func(in *Input) { in.Said.Result.Machine.SystemUUID = "" }, CodeNoMachine, false},
		{"no UUID, allowed", func(in *Input) { in.Node.SystemUUID, in.AllowMissingUUID = "", true }, CodeTrusted, true},
		{"other UUID", func(in *Input) { in.Node.SystemUUID, in.AllowMissingUUID = "def", true }, CodeOtherUUID, false},
		{"no boot ID", func(in *Input) { in.Node.BootID, in.Said.Result.Machine.BootID, in.AllowMissingUUID = "", "", true }, CodeNoMachine, false},
		{"other boot", func(in *Input) { in.Node.BootID = "Boot" }, CodeRebooted, false},
		{"other key", func(in *Input) { in.Bound = &v1alpha1.NodeBinding{UID: "uid", AKName: "other"} }, CodeOtherKey, false},
		{"no key", func(in *Input) { in.Said.Result.AKName = "" }, CodeOtherKey, false},
		{"made again, old result", func(in *Input) {
			in.Bound, in.Node.Created = &v1alpha1.NodeBinding{UID: "before", AKName: "ak"}, now.Add(-time.Minute)
		}, CodeRecreated, false},
		{"made again, new result, new key", func(in *Input) { in.Bound = &v1alpha1.NodeBinding{UID: "before", AKName: "other"} }, CodeTrusted, true},
		{"first result before the node joined", func(in *Input) { in.Node.Created = now }, CodeTrusted, true},
		{"AIAS took it back", func(in *Input) { in.Said.Trust = protocol.Untrusted }, CodeWithdrawn, false},
		{"AIAS says nothing", func(in *Input) { in.Said.Trust = "" }, CodeWithdrawn, false},
		{"untrusted", func(in *Input) { in.Said.Result.Trusted = false }, CodeUntrusted, true},
		{"untrusted, though the stream says trusted", func(in *Input) { in.Said.Result.Trusted = false; in.Said.Trust = protocol.Trusted }, CodeUntrusted, true},
	}
	for _, tt := range tests {
		in := good()
		tt.change(&in)
		v := Judge(in)
		if v.Code != tt.code || v.Valid != tt.valid || v.Trusted != (tt.code == CodeTrusted) || (v.Reason == "") != v.Trusted {
			t.Errorf("%s: Judge(): got %s, valid %v, trusted %v, because %q; want %s, valid %v", tt.name, v.Code, v.Valid, v.Trusted, v.Reason, tt.code, tt.valid)
		}
		if v.Valid && (v.Bound == nil || v.Bound.UID != in.Node.UID || v.Bound.AKName != in.Said.Result.AKName) {
			t.Errorf("%s: Judge(): bound to %+v, want the node object and the key", tt.name, v.Bound)
		}
		if !v.Valid && (v.Bound != in.Bound || v.Result != nil) {
			t.Errorf("%s: Judge(): a result that does not count left %+v, %+v", tt.name, v.Bound, v.Result)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	in := good()
	for b.Loop() {
		Judge(in)
	}
}
