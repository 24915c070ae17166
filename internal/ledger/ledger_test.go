package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// envWriter tells the test binary to append to the ledger in this folder until it is killed; envKey is its key.
const (
	envWriter = "LEDGER_TEST_WRITER"
	envKey    = "LEDGER_TEST_KEY"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envWriter); dir != "" {
		os.Exit(writeForever(dir))
	}
	os.Exit(m.Run())
}

// keys are those of one test's ledger.
type keys struct{ secret, public string }

func newKeys(t testing.TB) keys {
	t.Helper()
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return keys{secret, public}
}

func open(t testing.TB, dir string, k keys) *Ledger {
	t.Helper()
	l, err := Open(context.Background(), dir, k.secret, k.public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func mustAppend(t testing.TB, l *Ledger, e Entry) {
	t.Helper()
	if err := l.Append(context.Background(), e); err != nil {
		t.Fatal(err)
	}
}

// filled returns the folder of a closed ledger with n entries, and its keys.
func filled(t testing.TB, n int) (string, keys) {
	t.Helper()
	dir, k := filepath.Join(t.TempDir(), "ledger"), newKeys(t)
	l := open(t, dir, k)
	var entries []Entry
	for i := range n {
		entries = append(entries, entry(i))
	}
	if err := l.AppendAll(context.Background(), entries); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func entry(i int) Entry {
	return Entry{Time: time.Unix(int64(i), 0), Kind: KeyReleased, Node: "worker-" + strconv.Itoa(i), Subject: "image:abc", Decision: "released"}
}

func reader(t testing.TB, dir string, k keys) *Reader {
	t.Helper()
	r, err := NewReader(Folder(dir), k.public)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newest(t testing.TB, r *Reader) *Checkpoint {
	t.Helper()
	cp, err := r.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return cp
}

func TestAppendAndVerify(t *testing.T) {
	ctx := context.Background()
	const n = 600 // three bundles of entries, two tiles
	dir, k := filled(t, n)
	r := reader(t, dir, k)
	older := newest(t, r)
	if older.Size != n {
		t.Fatalf("checkpoint after Close(): got %d entries, want %d", older.Size, n)
	}
	l := open(t, dir, k)
	for i := n; i < n+3; i++ {
		mustAppend(t, l, entry(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cp := newest(t, r)
	if err := errors.Join(r.Verify(ctx, cp, nil), r.Verify(ctx, older, nil), r.Continues(ctx, older, cp), r.Continues(ctx, cp, cp)); err != nil {
		t.Error(err)
	}
	i := uint64(0)
	for e, err := range r.Entries(ctx, cp, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if want := entry(int(i)); e.Index != i || e.Node != want.Node || !e.Time.Equal(want.Time) || e.Kind != want.Kind {
			t.Fatalf("entry %d: got %+v, want %+v", i, e, want)
		}
		i++
	}
	if i != n+3 {
		t.Errorf("Entries(): got %d, want %d", i, n+3)
	}
	for _, c := range []*Checkpoint{older, cp} {
		for _, index := range []uint64{0, 255, 256, c.Size - 1} {
			p, err := r.Prove(ctx, c, index)
			if err != nil {
				t.Fatal(err)
			}
			if e, err := r.CheckProof(p); err != nil || e.Node != entry(int(index)).Node {
				t.Errorf("CheckProof(%d of %d): got %+v, %v", index, c.Size, e, err)
			}
		}
		if _, err := r.Prove(ctx, c, c.Size); err == nil {
			t.Errorf("Prove(%d of %d): got no error", c.Size, c.Size)
		}
	}
}

// TestTampered: each byte of the entries, each file taken away, and another history are found out.
func TestTampered(t *testing.T) {
	ctx := context.Background()
	dir, k := filled(t, 5)
	r := reader(t, dir, k)
	cp := newest(t, r)
	whole, err := r.Prove(ctx, cp, 2)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tile", "entries", "000.p", "5")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range data {
		bad := append([]byte{}, data...)
		bad[i] ^= 1
		put(bad)
		if err := r.Verify(ctx, cp, nil); !errors.Is(err, ErrTampered) {
			t.Fatalf("Verify() with byte %d changed: got %v, want %v", i, err, ErrTampered)
		}
	}
	for n := range data {
		put(data[:n])
		if err := r.Verify(ctx, cp, nil); !errors.Is(err, ErrTampered) {
			t.Fatalf("Verify() with %d of %d bytes: got %v, want %v", n, len(data), err, ErrTampered)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(ctx, cp, nil); !errors.Is(err, ErrTampered) {
		t.Errorf("Verify() without the entries: got %v, want %v", err, ErrTampered)
	}
	for name, change := range map[string]func(*Proof){
		"another entry":      func(p *Proof) { p.Entry = strings.Replace(p.Entry, "worker-2", "worker-9", 1) },
		"another place":      func(p *Proof) { p.Index = 3 },
		"beyond the end":     func(p *Proof) { p.Index = 5 },
		"a hash less":        func(p *Proof) { p.Hashes = p.Hashes[1:] },
		"another hash":       func(p *Proof) { p.Hashes = append([][]byte{make([]byte, 32)}, p.Hashes[1:]...) },
		"another checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n5\n", "\n6\n", 1) },
	} {
		p := *whole
		change(&p)
		if e, err := r.CheckProof(&p); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: CheckProof(): got %+v, %v", name, e, err)
		}
	}
}

// TestAnotherHistory: a ledger written anew with the right key is no continuation, nor is a shorter one, nor one with another key.
func TestAnotherHistory(t *testing.T) {
	ctx := context.Background()
	dir, k := filled(t, 5)
	honest := newest(t, reader(t, dir, k))
	forged := filepath.Join(t.TempDir(), "forged")
	l := open(t, forged, k)
	for i := range 7 {
		e := entry(i)
		if i == 3 {
			e.Node = "somebody-else"
		}
		mustAppend(t, l, e)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := reader(t, forged, k)
	cp := newest(t, r)
	if err := r.Verify(ctx, cp, nil); err != nil {
		t.Errorf("Verify() of the forged ledger alone: %v", err)
	}
	if err := r.Continues(ctx, honest, cp); !errors.Is(err, ErrTampered) {
		t.Errorf("Continues() with another history: got %v, want %v", err, ErrTampered)
	}
	if err := r.Continues(ctx, cp, honest); !errors.Is(err, ErrTampered) {
		t.Errorf("Continues() with fewer entries: got %v, want %v", err, ErrTampered)
	}
	if _, err := reader(t, dir, newKeys(t)).Checkpoint(ctx); !errors.Is(err, ErrSignature) {
		t.Errorf("Checkpoint() by another key: got %v, want %v", err, ErrSignature)
	}
	other := newKeys(t)
	if _, err := Open(ctx, dir, other.secret, other.public); !errors.Is(err, ErrSignature) {
		t.Errorf("Open() with another key: got %v, want %v", err, ErrSignature)
	}
	if _, err := Open(ctx, dir, "PRIVATE+KEY+x", k.public); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("Open() with a bad key: got %v, want an error that does not show it", err)
	}
	if _, err := reader(t, t.TempDir(), k).Checkpoint(ctx); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Checkpoint() of an empty folder: got %v, want %v", err, fs.ErrNotExist)
	}
}

func TestAppendRefuses(t *testing.T) {
	ctx := context.Background()
	l := open(t, t.TempDir(), newKeys(t))
	many := map[string]string{}
	for i := range maxDetail + 1 {
		many[strconv.Itoa(i)] = ""
	}
	for name, e := range map[string]Entry{
		"no kind": {}, "unknown kind": {Kind: "gossip"}, "too many details": {Kind: Act, Detail: many},
	} {
		if err := l.Append(ctx, e); err == nil {
			t.Errorf("%s: Append(): got no error", name)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Append(gone, entry(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Append() with an ended context: got %v, want %v", err, context.Canceled)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Ledger{"closed": l, "nil": nil} {
		if err := l.Append(ctx, entry(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("Append() to a %s ledger: got %v, want %v", name, err, ErrClosed)
		}
	}
}

func TestLongText(t *testing.T) {
	e := Entry{Kind: Act, Time: time.Unix(0, 0), Reason: strings.Repeat("ü", maxText), Node: "a\xffb", Detail: map[string]string{strings.Repeat("k", 2000): "v"}}
	data, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil || len(got.Reason) > maxText || !strings.HasSuffix(got.Reason, "ü…") || got.Node != "a\uFFFDb" {
		t.Errorf("entry with long text: got %+v, %v", got, err)
	}
	worst := Entry{Kind: Act, Time: time.Unix(0, 0), Detail: map[string]string{}}
	control := strings.Repeat("\x01", maxText)
	worst.Node, worst.Actor, worst.Subject, worst.Decision, worst.Reason, worst.Verdict, worst.Ref = control, control, control, control, control, control, control
	for i := range maxDetail {
		worst.Detail[strconv.Itoa(i)+control] = control
	}
	if data, err := worst.encode(); err != nil || len(data) > maxEntry {
		t.Errorf("the longest entry: got %d bytes, %v; want at most %d", len(data), err, maxEntry)
	}
}

// TestConcurrent: all that was answered is there, once, whoever appended.
func TestConcurrent(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	l := open(t, dir, k)
	const writers, each = 50, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Append(context.Background(), entry(w*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := reader(t, dir, k)
	seen := map[string]int{}
	for e, err := range r.Entries(context.Background(), newest(t, r), 0) {
		if err != nil {
			t.Fatal(err)
		}
		seen[e.Node]++
	}
	for i := range writers * each {
		if n := seen[entry(i).Node]; n != 1 {
			t.Errorf("entry %d is there %d times", i, n)
		}
	}
}

// writeForever appends and prints the number of each entry that Append answered.
func writeForever(dir string) int {
	secret, public, _ := strings.Cut(os.Getenv(envKey), " ")
	l, err := Open(context.Background(), dir, secret, public)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for i := uint64(0); ; i++ {
		if err := l.Append(context.Background(), entry(int(i))); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("wrote")
	}
}

// TestKilled: what Append answered is there after kill -9 at any moment, the ledger opens again, and continues.
func TestKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, k := filepath.Join(t.TempDir(), "ledger"), newKeys(t)
	wrote := uint64(0)
	var before *Checkpoint
	for round := range 8 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), envWriter+"="+dir, envKey+"="+k.secret+" "+k.public)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(150+round*37)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for s := bufio.NewScanner(out); s.Scan(); {
			if s.Text() != "wrote" {
				t.Errorf("round %d: %s", round, s.Text())
			} else {
				wrote++
			}
		}
		_ = cmd.Wait()
		l := open(t, dir, k)
		mustAppend(t, l, Entry{Kind: Service, Reason: "after kill -9"})
		wrote++
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		r := reader(t, dir, k)
		cp := newest(t, r)
		if cp.Size < wrote || cp.Size > wrote+1 { // one may be there that was not answered
			t.Errorf("round %d: the ledger has %d entries, %d were answered", round, cp.Size, wrote)
		}
		if err := r.Verify(context.Background(), cp, nil); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if before != nil {
			if err := r.Continues(context.Background(), before, cp); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		before, wrote = cp, cp.Size
	}
	if wrote < 16 {
		t.Errorf("only %d entries were written: the test has shown nothing", wrote)
	}
}
