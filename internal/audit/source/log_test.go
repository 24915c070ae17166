package source_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/source"
)

// logWriter writes a log as auditd does, and rotates it.
type logWriter struct {
	t      *testing.T
	path   string
	serial int
	keep   int
}

// write appends n events; an event may be written in two parts, the second after a rotation.
func (w *logWriter) write(n int, part func(first, second string)) {
	for range n {
		w.serial++
		now := time.Now()
		stamp := fmt.Sprintf("audit(%d.%03d:%d)", now.Unix(), now.Nanosecond()/1e6, w.serial)
		first := fmt.Sprintf("type=SYSCALL msg=%s: arch=c000003e syscall=2 items=0 pid=1\n", stamp)
		second := fmt.Sprintf("type=PROCTITLE msg=%s: proctitle=61\n", stamp)
		if part != nil {
			part(first, second)
			continue
		}
		w.append(first + second)
	}
}

func (w *logWriter) append(text string) {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
}

func (w *logWriter) rotate() {
	name := func(i int) string { return fmt.Sprintf("%s.%d", w.path, i) }
	_ = os.Remove(name(w.keep))
	for i := w.keep - 1; i >= 1; i-- {
		_ = os.Rename(name(i), name(i+1))
	}
	if err := os.Rename(w.path, name(1)); err != nil {
		w.t.Fatal(err)
	}
	w.append("")
}

// take reads until no item came for the given time, and returns the serial numbers of events and the gaps.
func take(t *testing.T, r *source.Reader, quiet time.Duration) (serials []uint64, gaps []source.Gap) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), quiet)
		it, err := r.Next(ctx)
		cancel()
		switch {
		case err != nil:
			return serials, gaps
		case it.Event != nil && it.Event.Partial:
			t.Errorf("event %v is partial", it.Event.ID)
		case it.Event != nil:
			serials = append(serials, it.Event.ID.Serial)
		case it.Gap != nil && it.Gap.Why != source.WhyKernel:
			gaps = append(gaps, *it.Gap)
		}
	}
}

// upTo returns the numbers first to last.
func upTo(first, last int) []uint64 {
	var all []uint64
	for n := first; n <= last; n++ {
		all = append(all, uint64(n))
	}
	return all
}

func openLog(t *testing.T, w *logWriter) *source.Reader {
	t.Helper()
	r, err := source.Open(t.Context(), source.Config{Log: w.path, NoLive: true, FromStart: true, Checkpoint: filepath.Join(filepath.Dir(w.path), "checkpoint"), Grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const quiet = 600 * time.Millisecond

func TestLogRotates(t *testing.T) {
	w := &logWriter{t: t, path: filepath.Join(t.TempDir(), "audit.log"), keep: 20}
	w.write(50, nil)
	r := openLog(t, w)
	defer r.Close()
	for i := range 5 {
		w.write(10, nil)
		w.write(1, func(first, second string) {
			w.append(first)
			w.rotate()
			w.append(second)
		})
		if i == 2 {
			w.rotate() // twice at once: the file between is short
			w.write(1, nil)
			w.rotate()
		}
	}
	got, gaps := take(t, r, quiet)
	slices.Sort(got)
	if want := upTo(1, 106); !slices.Equal(got, want) || len(gaps) > 0 {
		t.Errorf("got events %v and gaps %+v, want 1 to 106 and none", got, gaps)
	}
}

func TestLogRestarts(t *testing.T) {
	w := &logWriter{t: t, path: filepath.Join(t.TempDir(), "audit.log"), keep: 20}
	w.append("type=DAEMON_START msg=audit(1795528830.746:9440): op=start ver=3.0.9\n")
	w.write(10, nil)
	var half string
	w.write(1, func(first, second string) { w.append(first); half = second })
	w.write(10, nil)
	r := openLog(t, w)
	got, _ := take(t, r, quiet)
	if len(got) != 21 || got[0] != 9440 {
		t.Fatalf("got %v, want 9440 and 20 events", got)
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	w.write(5, nil) // read, not committed
	lost, _ := take(t, r, quiet)
	r.Close()
	if len(lost) != 5 {
		t.Fatalf("got %v, want 5 events", lost)
	}

	w.append("type=DAEMON_ROTATE msg=audit(1795528830.746:9441): op=rotate\n")
	w.rotate()
	w.append(half)
	w.write(5, nil)
	w.rotate()
	r = openLog(t, w)
	again, gaps := take(t, r, quiet)
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	slices.Sort(again)
	want := append([]uint64{11}, append(upTo(22, 31), 9441)...)
	if !slices.Equal(again, want) || len(gaps) > 0 {
		t.Errorf("after the restart: got %v and gaps %+v, want %v", again, gaps, want)
	}

	r = openLog(t, w)
	defer r.Close()
	if once, gaps := take(t, r, quiet); len(once)+len(gaps) > 0 {
		t.Errorf("nothing happened, and after another restart: got %v, gaps %+v", once, gaps)
	}
}

func TestLogRotatedAway(t *testing.T) {
	w := &logWriter{t: t, path: filepath.Join(t.TempDir(), "audit.log"), keep: 2}
	w.write(10, nil)
	r := openLog(t, w)
	if got, _ := take(t, r, quiet); len(got) != 10 {
		t.Fatalf("got %v, want 10 events", got)
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	for range 4 {
		w.write(10, nil)
		w.rotate()
	}
	r = openLog(t, w)
	defer r.Close()
	got, gaps := take(t, r, 2500*time.Millisecond)
	if want := upTo(31, 50); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(gaps) != 2 || gaps[0].Why != source.WhyRotated || gaps[1].Why != source.WhySerial || gaps[1].First != 11 || gaps[1].Last != 30 || gaps[1].Events != 20 {
		t.Errorf("got gaps %+v, want one of rotation, one of the numbers 11 to 30", gaps)
	}
}

func TestLogCut(t *testing.T) {
	w := &logWriter{t: t, path: filepath.Join(t.TempDir(), "audit.log"), keep: 2}
	w.write(10, nil)
	r := openLog(t, w)
	defer r.Close()
	if got, _ := take(t, r, quiet); len(got) != 10 {
		t.Fatalf("got %v, want 10 events", got)
	}
	if err := os.Truncate(w.path, 0); err != nil {
		t.Fatal(err)
	}
	w.write(3, nil)
	w.append("no record\n")
	got, gaps := take(t, r, 2*time.Second)
	if !slices.Equal(got, upTo(11, 13)) || len(gaps) != 2 || gaps[0].Why != source.WhyRotated || gaps[1].Why != source.WhyOther || gaps[1].Events != 1 {
		t.Errorf("got %v and gaps %+v, want 11 to 13, a gap of the cut and one of a line", got, gaps)
	}
}

func TestBrokenCheckpoint(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"bootID":"x","current":{"spans":[{"first":5,"last":1}]}}`} {
		path := filepath.Join(t.TempDir(), "checkpoint")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := source.Open(t.Context(), source.Config{Log: path, NoLive: true, Checkpoint: path})
		if err == nil {
			r.Close()
			t.Errorf("Open with checkpoint %q: opened, want an error", text)
		}
	}
}
