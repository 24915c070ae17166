package eventlog_test

import (
	"bytes"
	"syscall"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// server returns a log of the shape of a large real one (a bare-metal server): 158 events with the header, three banks, 50 kB.
func server() []byte {
	b := eventlogtest.New(tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384)
	b.AddLocality(3)
	for i := range 148 {
		b.Add(uint32(i%8), eventlog.EFIVariableDriverConfig, variable("Variable", bytes.Repeat([]byte{byte(i)}, 160)))
	}
	return b.AddSeparators().Bytes()
}

func TestServerLogHasRealSize(t *testing.T) {
	b := server()
	if n := len(parse(t, b).Events); n != 158 || len(b) < 48_000 || len(b) > 54_000 {
		t.Errorf("benchmark log: got %d events in %d bytes, want 158 in about 50,000", n, len(b))
	}
}

// cpuPerOp makes a benchmark report CPU time, which a busy machine doesn't spoil as it does wall time. Call the result at the end.
func cpuPerOp(b *testing.B) func() {
	cpu := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := cpu()
	return func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkParse(b *testing.B) {
	log := server()
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	defer cpuPerOp(b)()
	for b.Loop() {
		if _, err := eventlog.Parse(log); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseReplay is what one attestation costs: the quoted bank of the log.
func BenchmarkParseReplay(b *testing.B) {
	raw := server()
	for name, algs := range map[string][]tpm.Alg{
		"sha256": {tpm.AlgSHA256},
		"all":    {tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			defer cpuPerOp(b)()
			for b.Loop() {
				log, err := eventlog.Parse(raw)
				if err != nil {
					b.Fatal(err)
				}
				for _, a := range algs {
					if _, err := log.Replay(a); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
