package nbde

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/tpm"
)

var (
	noon   = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	here   = netip.MustParseAddr("192.0.2.7")
	there  = netip.MustParseAddr("192.0.2.8")
	strict = &release.Conditions{}
)

// good is a node that meets everything, judged a minute ago.
func good(change ...func(*release.Node)) release.Node {
	n := release.Node{
		Valid: true, Levels: map[int32]string{1: "pass", 2: "pass", 3: "pass", 4: "pass", 5: "pass"}, Tags: map[string]string{"site": "muc"},
		Issued: noon.Add(-time.Minute), Expires: noon.Add(4 * time.Minute),
	}
	for _, f := range change {
		f(&n)
	}
	return n
}

// booting is a node of mode attested that attested a minute ago, in a boot that began then.
func booting(change ...func(*Record)) *Record {
	r := &Record{Node: "w", Policy: Policy{Mode: ModeAttested}}
	r.attested(&Attestation{ResetCount: 7, Source: here, Latch: tpm.LatchOpen}, noon.Add(-time.Minute))
	for _, f := range change {
		f(r)
	}
	return r
}

func plain(change ...func(*Record)) *Record {
	r := &Record{Node: "w", Policy: Policy{Mode: ModeNode}}
	for _, f := range change {
		f(r)
	}
	return r
}

func TestDecide(t *testing.T) {
	fallen := good(func(n *release.Node) { n.Levels[4] = "fail" })
	off := func(d time.Duration) release.Node { // a node that was last judged some time ago
		return good(func(n *release.Node) { n.Issued, n.Expires = noon.Add(-d), noon.Add(-d+5*time.Minute) })
	}
	revoked := func(r *Record) { r.Revoked = &Revocation{By: "ann", Reason: "stolen"} }
	window := func(from, until time.Duration) func(*Record) {
		return func(r *Record) { r.Maintenance = &Window{From: noon.Add(from), Until: noon.Add(until)} }
	}
	approval := func(life time.Duration, source netip.Addr) func(*Record) {
		return func(r *Record) { r.Approval = &Approval{Until: noon.Add(life), Source: source} }
	}
	conditions := func(c *release.Conditions) func(*Record) { return func(r *Record) { r.Policy.Conditions = c } }
	age := release.Duration(time.Hour)
	tests := []struct {
		name    string
		r       *Record
		n       release.Node
		from    netip.Addr
		grant   Grant
		missing string
	}{
		{"node, no conditions", plain(), release.Node{}, here, GrantNode, ""},
		{"node, revoked", plain(revoked), good(), here, "", "revoked by ann: stolen"},
		{"node, good", plain(conditions(strict)), good(), here, GrantNode, ""},
		{"node, off for hours", plain(conditions(strict)), off(5 * time.Hour), here, GrantNode, ""},
		{"node, off for days", plain(conditions(strict)), off(25 * time.Hour), here, "", "older than 24h"},
		{"node, off for longer than it may", plain(conditions(&release.Conditions{MaxResultAge: &age})), off(2 * time.Hour), here, "", "older than 1h"},
		{"node, fallen", plain(conditions(strict)), fallen, here, "", "level 4 is fail"},
		{"node, never seen", plain(conditions(strict)), release.Node{Why: "not enrolled"}, here, "", "not enrolled"},
		{"node, wrong tag", plain(conditions(&release.Conditions{Tags: map[string][]string{"site": {"ber"}}})), good(), here, "", "tag site is muc"},

		{"attested", booting(), good(), here, GrantLease, ""},
		{"attested, expired result", booting(), off(5 * time.Hour), here, "", "expired"},
		{"attested, fallen since", booting(), fallen, here, "", "level 4 is fail"},
		{"attested, another's address", booting(), good(), there, "", "asked from 192.0.2.8, and the node attested from 192.0.2.7"},
		{"attested, any address", booting(func(r *Record) { r.Policy.AnySource = true }), good(), there, GrantLease, ""},
		{"not attested", &Record{Policy: Policy{Mode: ModeAttested}}, good(), here, "", "has not attested"},
		{"attested, no address at all", &Record{Policy: Policy{Mode: ModeAttested}}, good(), netip.Addr{}, "", "has not attested"},
		{"attested, too long ago", booting(func(r *Record) { r.Session.Attested = noon.Add(-2 * time.Minute) }), good(), here, "", "too long ago"},
		{"attested, long up", booting(func(r *Record) { r.Session.Began = noon.Add(-10 * time.Minute) }), good(), here, "", "has been up since"},
		{"attested, used up", booting(func(r *Record) { r.Session.Used = defaultUses }), good(), here, "", "8 recoveries of this boot are used up"},
		{"attested, one left", booting(func(r *Record) { r.Session.Used, r.Policy.Uses = 0, 1 }), good(), here, GrantLease, ""},
		{"attested, the one used", booting(func(r *Record) { r.Session.Used, r.Policy.Uses = 1, 1 }), good(), here, "", "1 recoveries"},
		{"binding, long up", booting(func(r *Record) { r.Session.Began, r.BindUntil = noon.Add(-time.Hour), noon.Add(time.Second) }), good(), here, GrantBinding, ""},
		{"binding, from elsewhere", booting(func(r *Record) { r.BindUntil = noon.Add(time.Second) }), good(), there, "", "asked from"},
		{"binding, fallen", booting(func(r *Record) { r.BindUntil = noon.Add(time.Second) }), fallen, here, "", "level 4"},
		{"binding is over", booting(func(r *Record) { r.Session.Began, r.BindUntil = noon.Add(-time.Hour), noon }), good(), here, "", "has been up"},
		{"everything that is missing is said", booting(func(r *Record) { r.Session.Used = 99 }), fallen, there, "", "asked from 192.0.2.8, and the node attested from 192.0.2.7; the 8 recoveries of this boot are used up; level 4 is fail"},

		{"window", booting(window(-1, 1)), fallen, there, GrantMaintenance, ""},
		{"window, not yet", booting(window(1, 2)), fallen, here, "", "level 4"},
		{"window, over", booting(window(-2, 0)), fallen, here, "", "level 4"},
		{"window, revoked", booting(window(-1, 1), revoked), good(), here, "", "revoked"},
		{"approval", plain(conditions(strict), approval(1, netip.Addr{})), fallen, there, GrantApproval, ""},
		{"approval that is not needed", booting(approval(1, netip.Addr{})), good(), here, GrantLease, ""},
		{"approval, over", plain(conditions(strict), approval(0, netip.Addr{})), fallen, here, "", "level 4"},
		{"approval for here", booting(approval(1, here)), fallen, here, GrantApproval, ""},
		{"approval for elsewhere", booting(approval(1, there)), fallen, here, "", "the approval is for 192.0.2.8"},
		{"approval, revoked", booting(approval(1, here), revoked), good(), here, "", "revoked"},
		{"no mode", &Record{}, good(), here, "", "mode \"\" is unknown"},
	}
	for _, tt := range tests {
		grant, missing := Decide(tt.r, tt.n, tt.from, noon)
		if grant != tt.grant && tt.missing == "" || (len(missing) == 0) != (tt.missing == "") || !strings.Contains(reasons(missing), tt.missing) {
			t.Errorf("%s: Decide(): got %q, %q; want %q, %q", tt.name, grant, missing, tt.grant, tt.missing)
		}
	}
}

// TestUses: what a release uses up.
func TestUses(t *testing.T) {
	r := booting(func(r *Record) { r.Policy.Uses = 2; r.Approval = &Approval{Until: noon.Add(time.Hour)} })
	for i, want := range []Grant{GrantLease, GrantLease, GrantApproval, ""} {
		grant, missing := Decide(r, good(), here, noon)
		if len(missing) > 0 {
			grant = ""
		}
		if grant != want {
			t.Fatalf("recovery %d: got %q, want %q", i+1, grant, want)
		}
		r.used(grant)
	}
	same := &Attestation{ResetCount: 7, Source: here, Latch: tpm.LatchOpen}
	if write := r.attested(same, noon); write {
		t.Error("attested() in the same boot: a boot began")
	}
	if _, missing := Decide(r, good(), here, noon); len(missing) == 0 {
		t.Error("another attestation in the same boot gave new uses")
	}
	if write := r.attested(&Attestation{ResetCount: 8, Source: there, Latch: tpm.LatchOpen}, noon); !write {
		t.Error("attested() after a reset: no boot began")
	}
	if _, missing := Decide(r, good(), there, noon); len(missing) != 0 {
		t.Errorf("after a boot: %q", missing)
	}
}

// TestLatch: a boot whose latch is closed gets no key, whatever is said of it later; the next boot does.
func TestLatch(t *testing.T) {
	r := booting()
	for _, step := range []struct {
		reset   uint32
		latch   tpm.LatchState
		write   bool
		missing string
	}{
		{7, tpm.LatchOpen, false, ""},
		{7, tpm.LatchUnquoted, true, "PCR 15 is not quoted"},
		{7, tpm.LatchForeign, true, "by something else"},
		{7, tpm.LatchOpen, true, ""},
		{7, tpm.LatchClosed, true, "open already"},
		{7, tpm.LatchOpen, false, "open already"},
		{8, tpm.LatchOpen, true, ""},
		{9, "", true, "PCR 15 is not quoted"},
	} {
		if write := r.attested(&Attestation{ResetCount: step.reset, Source: here, Latch: step.latch}, noon); write != step.write {
			t.Errorf("attested(%d, %s): to be written is %v, want %v", step.reset, step.latch, write, step.write)
		}
		_, missing := Decide(r, good(), here, noon)
		if (len(missing) == 0) != (step.missing == "") || !strings.Contains(reasons(missing), step.missing) {
			t.Errorf("after attested(%d, %s): got %q, want %q", step.reset, step.latch, missing, step.missing)
		}
	}
	r.Policy.IgnoreLatch = true
	if _, missing := Decide(r, good(), here, noon); len(missing) > 0 {
		t.Errorf("latch ignored: got %q", missing)
	}
	r.Policy.IgnoreLatch, r.BindUntil = false, noon.Add(time.Second)
	if grant, missing := Decide(r, good(), here, noon); len(missing) > 0 || grant != GrantBinding {
		t.Errorf("while binding: got %q, %q", grant, missing)
	}
}

// TestRecordIsKept: a record that was written is read as it was.
func TestRecordIsKept(t *testing.T) {
	age := release.Duration(time.Hour)
	want := booting(func(r *Record) {
		r.Policy.Conditions = &release.Conditions{Levels: []int32{1, 4}, MaxResultAge: &age, Tags: map[string][]string{"site": {"muc"}}}
		r.Policy.Lease, r.Policy.Uses, r.Policy.AnySource = release.Duration(time.Minute), 3, true
		r.Revoked, r.Maintenance = &Revocation{noon, "ann", "x"}, &Window{noon, noon, "ann", "y"}
		r.Approval = &Approval{noon, noon, "ann", "z", here}
		r.Last = &Last{noon, true, "w", here, "k"}
		r.BindUntil, r.Created = noon, noon
	})
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(b)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("parseRecord(%s): %v, differs:\n%s", b, err, diff)
	}
}

func TestPolicyValidate(t *testing.T) {
	for name, p := range map[string]Policy{
		"no mode": {}, "other mode": {Mode: "open"}, "uses": {Mode: ModeAttested, Uses: MaxUses + 1}, "negative": {Mode: ModeAttested, Uses: -1},
		"lease": {Mode: ModeAttested, Lease: release.Duration(2 * MaxLease)}, "negative boot": {Mode: ModeAttested, Boot: -1},
		"conditions": {Mode: ModeNode, Conditions: &release.Conditions{Levels: []int32{6}}}, "lease of mode node": {Mode: ModeNode, Lease: 1}, "latch of mode node": {Mode: ModeNode, IgnoreLatch: true},
	} {
		if err := p.Validate(); err == nil {
			t.Errorf("Validate(%s): got no error", name)
		}
	}
}
