package eventlog_test

import (
	"fmt"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// A verifier compares the log with the quoted PCRs first, and believes the data of an event only where it hashes to the digest.
func Example() {
	boot := eventlogtest.New(tpm.AlgSHA256).
		Add(8, eventlog.IPLType, []byte("some text\x00")).
		AddOver(8, eventlog.IPLType, []byte("grub_cmd: linux /vmlinuz quiet\x00"), []byte("linux /vmlinuz quiet"))
	quoted := boot.PCRs(tpm.AlgSHA256)
	boot.Entries[1].Data = []byte("grub_cmd: linux /vmlinuz evil\x00")

	log, err := eventlog.Parse(boot.Bytes())
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("mismatches:", len(log.Compare(&quoted)))
	for i := range log.Events[1:] {
		e := &log.Events[i+1]
		fmt.Println(eventlog.Describe(e), "- proven:", e.DataMatches(tpm.AlgSHA256))
	}
	// Output:
	// mismatches: 0
	// EV_IPL: text some text - proven: true
	// EV_IPL: grub_cmd linux /vmlinuz evil - proven: false
}
