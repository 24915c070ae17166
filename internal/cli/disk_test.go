package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/protocol"
)

func TestDisk(t *testing.T) {
	now := time.Now()
	thp := strings.Repeat("S", 43)
	w1 := protocol.Disk{
		Node: "w1", Policy: protocol.DiskPolicy{Mode: "attested"}, Why: "level 5 is fail", Rebind: true,
		Keys: []protocol.DiskKey{{Thumbprint: "new", Created: now}, {Thumbprint: "old", Created: now, Rotated: now}},
		Last: &protocol.DiskLast{At: now.Add(-time.Minute), Reason: "asked from 192.0.2.8", Source: "192.0.2.8"},
	}
	w1.Volumes = &protocol.NodeVolumes{Node: "w1", Volumes: []protocol.Volume{
		{Points: []string{"/", "/srv"}, Device: "/dev/mapper/root", Type: "ext4", Size: 20 << 30, Encrypted: "yes", Layers: []string{"dm-crypt", "partition", "disk"},
			Containers: []protocol.Container{{Device: "/dev/sda2", UUID: "01-23", Format: "LUKS2", Cipher: "aes-xts-plain64", Bindings: []string{"AIAS", "passphrase"}}}},
		{Swap: true, Device: "/dev/sdb", Type: "swap", Encrypted: "no", Why: "/dev/sdb is not \x1b[31mencrypted"},
	}}
	w2 := protocol.Disk{Node: "w2", Policy: protocol.DiskPolicy{Mode: "node"}, Ready: true, Why: "policy of the node", ApprovedUntil: now.Add(10 * time.Minute)}
	w3 := protocol.Disk{Node: "w3", Policy: protocol.DiskPolicy{Mode: "node"}, Revoked: true, Why: "revoked by ann"}
	list := protocol.DiskList{URL: "http://aias.example:7500", Signers: []string{thp}, Nodes: []protocol.Disk{w1, w2, w3},
		Shared: []protocol.DiskKey{{Thumbprint: "shared", Rotated: now, Clients: []protocol.DiskClient{{Client: "192.0.2.9"}}}}}
	bundle := operated(t, map[string]any{
		"GET /v1/volumes": protocol.VolumeList{Nodes: []protocol.NodeVolumes{*w1.Volumes, {Node: "w2", Problem: "the worker does not say which volumes it has"}}},
		"GET /v1/disks":   list, "PUT /v1/disks/w1": w1, "DELETE /v1/disks/w1": map[string]string{}, "POST /v1/disk-keys/shared": list,
		"PUT /v1/escrows/w1/v": protocol.Escrow{Node: "w1", Volume: "v", Deposited: now, By: "ann"}, "DELETE /v1/escrows/w1/v": map[string]string{},
		"GET /v1/escrows":               protocol.EscrowList{Escrows: []protocol.Escrow{{Node: "w1", Volume: "v", Taken: now.Add(-time.Minute), TakenBy: "ann, confirmed by bob"}}},
		"POST /v1/escrows/w1/v/ask":     protocol.Escrow{Node: "w1", Volume: "v", AskedBy: "ann", Reason: "drill", Until: now.Add(time.Hour)},
		"POST /v1/escrows/w1/v/confirm": protocol.Escrow{Node: "w1", Volume: "v", AskedBy: "ann", ConfirmedBy: "bob", Until: now.Add(time.Hour)},
		"POST /v1/escrows/w1/v/take":    protocol.Escrow{Node: "w1", Volume: "v", Passphrase: []byte("correct horse")},
		"POST /v1/disks/w1/revoke":      w3, "POST /v1/disks/w1/unrevoke": w2, "POST /v1/disks/w1/approve": w2, "POST /v1/disks/w1/maintain": w2, "POST /v1/disks/w1/rotate": w1,
	})
	for _, tc := range []struct {
		args string
		code int
		want []string
	}{
		{"list", 0, []string{"w1 attested closed refused", "ago 1 of 2 encrypted AIAS, passphrase └ level 5 is fail", "refused to 192.0.2.8: asked from 192.0.2.8", "clevis luks regen",
			"w2 node opens none not known └ policy of the node", "approved for", "w3 node revoked", "shared key shared: 1 clients, rotated; not answered"}},
		{"volumes", 0, []string{"w1 / and 1 more /dev/mapper/root 20 GiB yes AIAS, passphrase └ ext4 on dm-crypt on partition on disk", "LUKS2 aes-xts-plain64 01-23", "w1 swap /dev/sdb - no",
			"w2 unknown └ the worker does not say"}},
		{"volumes w2", 0, []string{"w2 unknown"}},
		{"volumes w9", 1, []string{"no node w9"}},
		{"bind w1 --tag site=muc --levels 1,2", 0, []string{`clevis luks bind -d DEVICE tang '{"url":"http://aias.example:7500/n/w1","thp":"` + thp + `"}'`}},
		{"bind w1 --tag site", 2, []string{"want NAME=VALUE"}},
		{"bind w1 --levels 7", 2, []string{"want some of 1 to 5"}},
		{"bind w9", 1, []string{"no such node"}},
		{"revoke w1 --reason stolen", 0, []string{"revoked"}},
		{"unrevoke w1", 0, []string{"opens"}},
		{"approve w1 --for 5m --source 192.0.2.7", 0, []string{"one recovery is approved"}},
		{"approve w1 --for 1500ms", 2, []string{"whole seconds"}},
		{"maintain w1 --for 0s", 0, []string{"w2"}},
		{"rotate w1", 0, []string{"To be bound again", "w1, 192.0.2.9"}},
		{"rotate --shared", 0, []string{"192.0.2.9"}},
		{"rotate", 2, []string{"want one of"}},
		{"rotate w1 --signing", 2, []string{"want one of"}},
		{"escrow w1 v --file disk_test.go", 0, []string{"w1 v kept"}},
		{"escrow w1 v", 2, []string{"the passphrase is empty"}},
		{"escrow w1 v --remove", 0, []string{"forgotten"}},
		{"recover", 0, []string{"w1 v known", "given to ann, confirmed by bob"}},
		{"recover w1 v --reason drill", 0, []string{"asked for", "touchstone disk recover w1 v --confirm"}},
		{"recover w1 v --confirm", 0, []string{"confirmed by bob; ann takes it"}},
		{"recover w1 v --take", 0, []string{"correct horse"}},
		{"recover w1 v --take --confirm", 2, []string{"one of --reason"}},
		{"recover w1 v", 2, []string{"one of --reason"}},
		{"recover w1", 2, []string{"want NODE and VOLUME, or neither"}},
		{"destroy w1", 2, []string{"--yes"}},
		{"destroy w1 --yes", 0, []string{"destroyed"}},
	} {
		code, out, errOut := run(t, append(append([]string{"disk"}, strings.Fields(tc.args)...), "--operator", bundle)...)
		if code != tc.code {
			t.Errorf("touchstone disk %s: got exit code %d, want %d: %s", tc.args, code, tc.code, errOut)
		}
		for _, want := range tc.want {
			if !strings.Contains(strings.Join(strings.Fields(out+errOut), " "), want) {
				t.Errorf("touchstone disk %s: got %q, want %q in it", tc.args, out+errOut, want)
			}
		}
	}
}

// TestBindFlags: what flags say is what AIAS is told; in mode node no flag means no condition.
func TestBindFlags(t *testing.T) {
	for name, tt := range map[string]struct {
		flags bindFlags
		given []string
		want  string
	}{
		"nothing":    {bindFlags{mode: "attested"}, nil, `{"mode":"attested"}`},
		"conditions": {bindFlags{mode: "node", levels: []int32{1, 2}, maxAge: time.Hour, tags: []string{"site=muc", "site=ber"}}, []string{"levels", "max-age", "tag"}, `{"mode":"node","conditions":{"levels":[1,2],"maxResultAge":"1h0m0s","tags":{"site":["muc","ber"]}}}`},
		"lease":      {bindFlags{mode: "attested", lease: time.Minute, uses: 3, anySource: true}, []string{"lease", "uses", "any-source"}, `{"mode":"attested","uses":3,"lease":"1m0s","anySource":true}`},
		"software":   {bindFlags{mode: "attested", softwareTPM: true}, []string{"software-tpm"}, `{"mode":"attested","conditions":{"softwareTPM":"Allow"}}`},
	} {
		given := map[string]bool{}
		for _, g := range tt.given {
			given[g] = true
		}
		p, err := tt.flags.policy(func(flag string) bool { return given[flag] })
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b, err := json.Marshal(p)
		if diff := cmp.Diff(tt.want, string(b)); err != nil || diff != "" {
			t.Errorf("%s: policy(): %v\n%s", name, err, diff)
		}
	}
}
