package appraisal

import (
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/luks/lukstest"
)

// atRest tells of an encrypted root with a header, a plain /boot/efi, and what more lines of mounts and swaps say; sdb1 and sdb2 are plain.
func atRest(header []byte, more ...string) func(*world) {
	return func(w *world) {
		v := evidence.Volumes{
			Mounts: [][]byte{[]byte("1 0 253:0 / / rw - ext4 /dev/mapper/root rw"), []byte("1 0 8:1 / /boot/efi rw - vfat /dev/sda1 rw")},
			Devices: []evidence.BlockDevice{
				{Number: "8:1", Name: "sda1"}, {Number: "8:2", Name: "sda2", Header: header}, {Number: "8:17", Name: "sdb1"}, {Number: "8:18", Name: "sdb2"},
				{Number: "253:0", Name: "dm-0", Below: []string{"8:2"}, DMName: []byte("root"), DMUUID: []byte(lukstest.DM)},
			},
		}
		for _, line := range more {
			if line[0] == '/' {
				v.Swaps = append(v.Swaps, []byte(line))
			} else {
				v.Mounts = append(v.Mounts, []byte(line))
			}
		}
		b, err := v.Encode()
		if err != nil {
			w.t.Fatal(err)
		}
		w.facts[evidence.FactVolumes] = b
	}
}

// asks sets the policy: volumes, passphrases, and the ways to a key.
func asks(volumes, passphrases string, keys ...string) func(*world) {
	return func(w *world) {
		d := &w.spec.BootLoader.DataAtRest
		d.Volumes, d.Passphrases, d.Keys = volumes, passphrases, keys
	}
}

// knows is what AIAS knows of the keys.
func knows(w *world) {
	w.after = append(w.after, func(in *Input) {
		in.Claims.DiskKeys = &claims.DiskKeys{Keys: map[string]bool{"ours": false}, Escrowed: map[string]bool{lukstest.UUID: true}}
	})
}

var (
	ours     = lukstest.Tang("http://aias/n/w", "ours")
	required = asks("required", "any")
)

var dataAtRestCases = []ruleCase{
	{RuleDataAtRest, "an agent that does not tell", nil, Pass, "does not say", claims.NotKnown},
	{RuleDataAtRest, "shown by default", atRest(lukstest.Header("")), Pass, "1 of 2 volumes are encrypted (the policy does not ask); not, or not known: /boot/efi", claims.Claimed},
	{RuleDataAtRest, "unreadable, and not asked", func(w *world) { w.fact(evidence.FactVolumes, "x") }, Pass, "cannot be read", claims.NotKnown},

	{RuleDataAtRest, "required, and all is", all(atRest(lukstest.Header("")), required), Pass, "1 of 2 volumes must be encrypted, and are", claims.Claimed},
	{RuleDataAtRest, "required, not told", required, Unknown, "does not say", claims.NotKnown},
	{RuleDataAtRest, "required, unreadable", all(func(w *world) { w.fact(evidence.FactVolumes, "x") }, required), Unknown, "cannot be read", claims.NotKnown},
	{RuleDataAtRest, "plain data disk", all(atRest(lukstest.Header(""), "1 0 8:17 / /data rw - xfs /dev/sdb1 rw"), required), Fail, "volume /data (/dev/sdb1, xfs) is not encrypted", claims.Claimed},
	{RuleDataAtRest, "plain data disk, warned", all(atRest(lukstest.Header(""), "1 0 8:17 / /data rw - xfs /dev/sdb1 rw"), asks("warn", "any")), Warn, "/data", claims.Claimed},
	{RuleDataAtRest, "plain swap", all(atRest(lukstest.Header(""), "/dev/sdb2 partition 8"), required), Fail, "volume swap", claims.Claimed},
	{RuleDataAtRest, "plain swap, excepted", all(atRest(lukstest.Header(""), "/dev/sdb2 partition 8"), required, func(w *world) { w.spec.BootLoader.DataAtRest.Mounts = []string{"*"} }), Pass, "1 of 3", claims.Claimed},
	{RuleDataAtRest, "read-only media", all(atRest(lukstest.Header(""), "1 0 8:17 / /cdrom ro - iso9660 /dev/sdb1 ro"), required), Pass, "1 of 3", claims.Claimed},
	{RuleDataAtRest, "an exception does not help what is named", all(atRest(lukstest.Header("")), required, func(w *world) { w.spec.BootLoader.DataAtRest.Mounts = []string{"/boot/efi"} }), Fail, "/boot/efi", claims.Claimed},
	{RuleDataAtRest, "a path means what holds it", all(atRest(nil, "1 0 8:17 / /var rw - xfs /dev/sdb1 rw"), required, func(w *world) { w.spec.BootLoader.DataAtRest.Mounts = []string{"/var/lib/etcd"} }), Fail, "volume /var ", claims.Claimed},
	{RuleDataAtRest, "cannot be told", all(atRest(lukstest.Header(""), "1 0 0:50 / /tank rw - zfs tank rw"), required), Unknown, "/tank", claims.NotKnown},
	{RuleDataAtRest, "early boot", all(func(w *world) {
		b, _ := (&evidence.Volumes{}).Encode()
		w.facts[evidence.FactVolumes] = b
	}, required), Pass, "no volume of a local disk is in use", claims.Claimed},
	{RuleDataAtRest, "more than is told", all(func(w *world) {
		b, _ := (&evidence.Volumes{Cut: true}).Encode()
		w.facts[evidence.FactVolumes] = b
	}, required), Unknown, "more volumes", claims.NotKnown},

	{RuleDataAtRest, "bound to AIAS", all(atRest(lukstest.Header("", ours)), asks("required", "any", "aias"), knows), Pass, "must be encrypted, and are", claims.Claimed},
	{RuleDataAtRest, "bound to AIAS, passphrase escrowed", all(atRest(lukstest.Header("", ours)), asks("required", "escrowed", "aias"), knows), Pass, "must be", claims.Claimed},
	{RuleDataAtRest, "two passphrases, one escrowed", all(atRest(lukstest.Header("", ours, "")), asks("required", "escrowed", "aias"), knows), Fail, "has 2 passphrases, and AIAS keeps one", claims.Claimed},
	{RuleDataAtRest, "passphrase, too", all(atRest(lukstest.Header("", ours)), asks("required", "none", "aias"), knows), Fail, "opens by a passphrase, too", claims.Claimed},
	{RuleDataAtRest, "passphrase only", all(atRest(lukstest.Header("")), asks("required", "any", "aias", "tpm2"), knows), Fail, "only by a passphrase", claims.Claimed},
	{RuleDataAtRest, "other Tang", all(atRest(lukstest.Header(ours, lukstest.Tang("http://evil", "k"))), asks("required", "any", "aias"), knows), Fail, "opens by other Tang http://evil (key slot 1)", claims.Claimed},
	{RuleDataAtRest, "other Tang is accepted", all(atRest(lukstest.Header(lukstest.Tang("http://tang", "k"))), asks("required", "any", "tang"), knows), Pass, "must be", claims.Claimed},
	{RuleDataAtRest, "whose Tang is not known offline", all(atRest(lukstest.Header(ours)), asks("required", "any", "aias")), Unknown, "key slot 0 opens by Tang http://aias/n/w", claims.NotKnown},
	{RuleDataAtRest, "TPM", all(atRest(lukstest.Header(lukstest.TPM2("7"))), asks("required", "none", "tpm2"), knows), Pass, "must be", claims.Claimed},
	{RuleDataAtRest, "both of AIAS and TPM", all(atRest(lukstest.Header(lukstest.Sharing(2, "http://aias", "ours", "7"))), asks("required", "none", "aias"), knows), Pass, "must be", claims.Claimed},
	{RuleDataAtRest, "one of AIAS and TPM", all(atRest(lukstest.Header(lukstest.Sharing(1, "http://aias", "ours", "7"))), asks("required", "none", "aias"), knows), Fail, "1 of [AIAS, TPM (PCR 7)]", claims.Claimed},
	{RuleDataAtRest, "unknown token", all(atRest(lukstest.Header(ours, `"type":"vendor"`)), asks("required", "any", "aias"), knows), Unknown, "unknown (a token", claims.NotKnown},
	{RuleDataAtRest, "no header", all(atRest(nil), asks("required", "any", "aias"), knows), Unknown, "what opens volume / ", claims.NotKnown},
	{RuleDataAtRest, "no header, and keys not asked", all(atRest(nil), required), Pass, "must be", claims.Claimed},
	{RuleDataAtRest, "header that was changed", all(atRest(append(lukstest.Header(ours), 'x')), asks("required", "any", "aias"), knows), Unknown, "checksum", claims.NotKnown},
}
