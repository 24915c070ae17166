package fleet

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/test/boots"
)

// boot is what a real machine measured while it booted, and what its TPM held afterwards. All nodes share it.
type boot struct {
	log, list   []byte
	logDigest   []byte
	facts       map[string][]byte
	factsDigest []byte
	bank        tpm.Bank // sha256
	entries     []entry  // of the list, to be measured once more
}

// entry is one record of an IMA list.
type entry struct {
	raw    []byte
	digest []byte // what the kernel extends into the sha256 bank for it
}

// imaPCR is the PCR of the IMA list.
const imaPCR = ima.PCR

// readBoot reads the embedded boot and replays it.
func readBoot() (*boot, error) {
	b := &boot{facts: map[string][]byte{}}
	var errs []error
	read := func(name string) []byte {
		data, err := boots.Files.ReadFile(path.Join("corpus/good", name))
		errs = append(errs, err)
		return data
	}
	b.log, b.list = read("eventlog.bin"), read("ima.bin")
	for _, f := range []string{
		evidence.FactLockdown, evidence.FactTainted, evidence.FactSigEnforce, evidence.FactCommandLine, evidence.FactModules, evidence.FactVersion,
	} {
		b.facts[f] = read(f)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the boot of the nodes: %w", err)
	}
	sum := sha256.Sum256(b.log)
	b.logDigest = sum[:]
	var err error
	if b.factsDigest, err = evidence.FactsDigest(b.facts); err != nil {
		return nil, err
	}
	return b, b.replay()
}

// replay computes the PCRs that the boot leaves.
func (b *boot) replay() error {
	l, err := eventlog.Parse(b.log)
	if err != nil {
		return fmt.Errorf("read the firmware log of the nodes: %w", err)
	}
	if b.bank, err = l.Replay(tpm.AlgSHA256); err != nil {
		return fmt.Errorf("replay the firmware log of the nodes: %w", err)
	}
	for i, v := range b.bank.Values {
		if v == nil {
			b.bank.Values[i] = make([]byte, sha256.Size)
		}
	}
	var starts []int
	err = ima.Parse(b.list, func(e *ima.Entry) error {
		sum := sha256.Sum256(e.Data)
		b.bank.Values[imaPCR] = extended(b.bank.Values[imaPCR], sum[:])
		b.entries = append(b.entries, entry{digest: sum[:]})
		starts = append(starts, e.Offset)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the IMA list of the nodes: %w", err)
	}
	for i := range b.entries {
		end := len(b.list)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		b.entries[i].raw = b.list[starts[i]:end]
	}
	if len(b.entries) < 2 {
		return errors.New("the IMA list of the nodes has no files")
	}
	b.entries = b.entries[1:] // boot_aggregate is measured once in a boot
	return nil
}

// extended is the value of a PCR of the sha256 bank after an extension.
func extended(pcr, digest []byte) []byte {
	sum := sha256.Sum256(append(bytes.Clone(pcr), digest...))
	return sum[:]
}
