package kubetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ask sends JSON to the server and decodes its answer, which must have the status.
func ask(t *testing.T, c *http.Client, method, url string, body any, status int) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	if response.StatusCode != status {
		t.Fatalf("%s %s: %s: %s, want %d", method, url, response.Status, answer, status)
	}
	out := map[string]any{}
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatalf("%s %s: %v: %s", method, url, err, answer)
	}
	return out
}

// TestTokens: a pod's token says on which node the pod is, and serves its audience only.
func TestTokens(t *testing.T) {
	s := Start(t)
	if again := Start(t); again != s {
		t.Error("a second Start started a second server")
	}
	c, core := s.Client(), s.URL+"/api/v1/namespaces"
	meta := func(name string) map[string]any { return map[string]any{"name": name} }
	ask(t, c, http.MethodPost, core, map[string]any{"metadata": meta("tokens")}, 201)
	ask(t, c, http.MethodPost, core+"/tokens/serviceaccounts", map[string]any{"metadata": meta("agent")}, 201)
	pod := ask(t, c, http.MethodPost, core+"/tokens/pods", map[string]any{"metadata": meta("agent-1"), "spec": map[string]any{
		"serviceAccountName": "agent", "nodeName": "w1", "containers": []any{map[string]any{"name": "agent", "image": "agent"}},
	}}, 201)
	token := ask(t, c, http.MethodPost, core+"/tokens/serviceaccounts/agent/token", map[string]any{"spec": map[string]any{
		"audiences": []string{"aias"}, "boundObjectRef": map[string]any{"kind": "Pod", "apiVersion": "v1", "name": "agent-1", "uid": pod["metadata"].(map[string]any)["uid"]},
	}}, 201)["status"].(map[string]any)["token"]
	review := func(audience string) string {
		status := ask(t, c, http.MethodPost, s.URL+"/apis/authentication.k8s.io/v1/tokenreviews",
			map[string]any{"spec": map[string]any{"token": token, "audiences": []string{audience}}}, 201)["status"]
		return fmt.Sprint(status)
	}
	for _, want := range []string{"authenticated:true", "authentication.kubernetes.io/node-name:[w1]", "system:serviceaccount:tokens:agent"} {
		if got := review("aias"); !strings.Contains(got, want) {
			t.Errorf("TokenReview for audience aias: got %s, want %q in it", got, want)
		}
	}
	if got := review("other"); strings.Contains(got, "authenticated:true") {
		t.Errorf("TokenReview for another audience: got %s, want it refused", got)
	}
}

// TestIdentities: certificates are users and groups, and the Node authorizer and RBAC work.
func TestIdentities(t *testing.T) {
	s := Start(t)
	nobody, err := s.HTTP("somebody")
	if err != nil {
		t.Fatal(err)
	}
	ask(t, nobody, http.MethodGet, s.URL+"/api/v1/nodes", nil, 403)
	node, err := s.HTTP("system:node:w9", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"metadata": map[string]any{"name": "w9", "labels": map[string]any{"node-restriction.kubernetes.io/trusted": "true"}}}
	ask(t, node, http.MethodPost, s.URL+"/api/v1/nodes", body, 403)
	delete(body["metadata"].(map[string]any), "labels")
	ask(t, node, http.MethodPost, s.URL+"/api/v1/nodes", body, 201)
}

const child = "KUBETEST_CHILD"

// TestDiesWithBinary: when the test binary is killed, nothing stays: no process, no folder.
func TestDiesWithBinary(t *testing.T) {
	if os.Getenv(child) != "" {
		s := StartOwn(t)
		fmt.Println("dir=" + s.Dir)
		time.Sleep(time.Minute)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithBinary$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []byte
	for buffer := make([]byte, 4096); !bytes.Contains(said, []byte("dir=")) || !bytes.HasSuffix(said, []byte("\n")); {
		n, err := out.Read(buffer)
		if said = append(said, buffer[:n]...); err != nil {
			t.Fatalf("child: %v: %s", err, said)
		}
	}
	dir := strings.Fields(string(said[bytes.Index(said, []byte("dir="))+4:]))[0]
	if got := len(inFolder(t, dir)); got != 2 {
		t.Errorf("%d processes work in %s, want etcd and kube-apiserver", got, dir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(dir)
		if left := inFolder(t, dir); len(left) == 0 && os.IsNotExist(err) {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("after the binary was killed: processes %v and folder %s (%v) are still there", left, dir, err)
		}
	}
}

// inFolder returns the processes that work in a folder.
func inFolder(t *testing.T, dir string) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.TrimSuffix(to, " (deleted)") == dir {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestStop: a stopped server answers nothing any more, and its folder is gone.
func TestStop(t *testing.T) {
	s := StartOwn(t)
	s.Stop()
	s.Stop()
	if err := s.ready(); err == nil {
		t.Error("a stopped server answers")
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("folder of a stopped server: got %v, want it gone", err)
	}
}
