package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashFile tells the test binary to be the process that is killed.
const crashFile = "STORE_CRASH_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		crashChild(path)
		return
	}
	os.Exit(m.Run())
}

// crashChild writes steps of several nodes without end, and says which ones have returned.
func crashChild(path string) {
	ctx := context.Background()
	s, err := Open(ctx, path, nil)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var mu sync.Mutex
	for i := range 8 {
		n, _, err := s.Enrol(ctx, enrolment(fmt.Sprint("node-", i), byte(i+1)))
		if err != nil {
			fmt.Println("error", err)
			return
		}
		go func() {
			for k := int64(1); ; k++ {
				u := step(n, k)
				u.State.Reason, u.Verdict = fmt.Sprint(k), fmt.Append(nil, k)
				u.IMA, u.IMAOffset = []byte("abcd"), uint64(k-1)*4
				u.Evidence[0].IMALen = uint64(k) * 4
				if _, err := s.Save(ctx, u); err != nil {
					fmt.Println("error", err)
					return
				}
				mu.Lock()
				fmt.Println(n.ID, k)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKill9 kills a process in the middle of its writes, several times over: whatever returned is there, and each step is whole.
func TestKill9(t *testing.T) {
	for round := range 3 {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.db", round))
		returned := killedWriter(t, path, 150+100*round)
		s, err := Open(context.Background(), path, nil)
		if err != nil {
			t.Fatalf("Open() after kill -9: %v", err)
		}
		checkWhole(t, s, returned)
		_ = s.Close()
	}
}

// killedWriter runs the child until it has said lines, kills it, and returns the last step of each node that it said.
func killedWriter(t *testing.T, path string, lines int) map[int64]int64 {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), crashFile+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	last := map[int64]int64{}
	r := bufio.NewReader(out)
	for i := 0; ; i++ {
		if i == lines {
			_ = cmd.Process.Kill()
		}
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			break
		}
		a, b, _ := strings.Cut(strings.TrimSpace(line), " ")
		node, err1 := strconv.ParseInt(a, 10, 64)
		k, err2 := strconv.ParseInt(b, 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("the child said %q", line)
		}
		last[node] = k
	}
	_ = cmd.Wait()
	if len(last) == 0 {
		t.Fatal("the child wrote nothing before it was killed")
	}
	return last
}

func checkWhole(t *testing.T, s *SQLite, returned map[int64]int64) {
	t.Helper()
	ctx := context.Background()
	nodes, err := s.Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		k := n.State.Watermark
		if k < returned[n.ID] {
			t.Errorf("node %s: step %d had returned, the store has %d", n.Name, returned[n.ID], k)
		}
		if k == 0 {
			continue
		}
		v, err := s.Verdict(ctx, n.ID)
		if err != nil || string(v) != fmt.Sprint(k) || n.State.Reason != fmt.Sprint(k) {
			t.Errorf("node %s at step %d: verdict %s, reason %s, %v: a step is half written", n.Name, k, v, n.State.Reason, err)
		}
		e, err := s.Evidence(ctx, n.ID, LastGood)
		if err != nil || e.IMALen != uint64(k)*4 {
			t.Errorf("node %s at step %d: evidence %+v, %v: a step is half written", n.Name, k, e, err)
			continue
		}
		if _, err := s.IMA(ctx, n.ID, 1, e.IMALen); err != nil {
			t.Errorf("node %s at step %d: %v", n.Name, k, err)
		}
		if h, err := s.History(ctx, n.Name, 1000, 0); err != nil || int64(len(h)) != k+1 {
			t.Errorf("node %s at step %d: %d changes in the history, %v; want %d", n.Name, k, len(h), err, k+1)
		}
	}
}
