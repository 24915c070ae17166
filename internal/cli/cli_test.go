package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/evidence"
)

// Folders of the repository that hold real boots, their references and their policy.
const (
	corpus     = "../../test/boots/corpus"
	references = "../../test/boots/references"
	bootPolicy = "../../test/boots/policy.yaml"
)

// run runs a command line and returns its exit code and what it printed.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	app := &App{Out: &o, Err: &e, In: strings.NewReader(""), Style: render.Style{Unicode: true, Width: 80}, Now: time.Now}
	code = app.Run(context.Background(), append([]string{"touchstone"}, args...))
	return code, o.String(), e.String()
}

// pack makes an Evidence document of a boot of the corpus.
func pack(t *testing.T, boot string) string {
	t.Helper()
	dir := filepath.Join(corpus, boot)
	out := filepath.Join(t.TempDir(), boot+".evidence")
	code, _, errOut := run(t, "evidence", "pack", "--quote-msg", dir+"/tpm/quote-ecc.attest", "--quote-sig", dir+"/tpm/quote-ecc.sig",
		"--ak-pub", dir+"/tpm/ak-ecc.pub", "--pcrs", dir+"/pcrs-sha256.json", "--eventlog", dir+"/eventlog.bin", "--ima", dir+"/ima.bin",
		"--facts", dir, "--node", boot, "-o", out)
	if code != 0 {
		t.Fatalf("evidence pack %s: exit code %d: %s", boot, code, errOut)
	}
	return out
}

func TestAppraiseExitCodes(t *testing.T) {
	good, cmdline := pack(t, "good"), pack(t, "cmdline")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := evidence.Decode(whole)
	if err != nil {
		t.Fatal(err)
	}
	doc.IMAOffset = 100
	part, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string // in what is printed
	}{
		{"trusted", []string{good}, 0, "good is trusted"},
		{"not trusted", []string{cmdline}, 1, "mitigations=off"},
		{"no references", []string{good, "--references", t.TempDir()}, 1, "is not trusted"},
		{"cut", []string{write("cut", whole[:len(whole)-1])}, 2, "not an Evidence document"},
		{"one byte more", []string{write("more", append(bytes.Clone(whole), 0))}, 2, "not an Evidence document"},
		{"garbage", []string{write("garbage", []byte("hello"))}, 2, "not an Evidence document"},
		{"empty", []string{write("empty", nil)}, 2, "not an Evidence document"},
		{"one part of a list", []string{write("part", part)}, 2, "one part of a worker's Evidence"},
		{"no such file", []string{filepath.Join(dir, "nothing")}, 2, "no such file"},
		{"no policy", []string{good, "--policy", filepath.Join(dir, "nothing")}, 2, "read the policy"},
		{"bad policy", []string{good, "--policy", write("policy", []byte("kind: Nothing"))}, 2, "TrustPolicy"},
		{"no references folder", []string{good, "--references", filepath.Join(dir, "nothing")}, 2, "reference folder"},
		{"no argument", nil, 2, "touchstone appraise --help"},
		{"unknown flag", []string{good, "--frobnicate"}, 2, "unknown flag"},
		{"unknown format", []string{good, "-o", "xml"}, 2, "xml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"appraise", "--policy", bootPolicy, "--references", references}, tc.args...)
			code, out, errOut := run(t, args...)
			if code != tc.code || !strings.Contains(out+errOut, tc.want) {
				t.Errorf("appraise: got exit code %d and %q%q, want %d and %q", code, out, errOut, tc.code, tc.want)
			}
			if code == 2 && strings.Count(errOut, "\n") != 1 {
				t.Errorf("appraise: error is %q, want one line", errOut)
			}
		})
	}
}

func TestAppraiseJSON(t *testing.T) {
	code, out, _ := run(t, "appraise", pack(t, "cmdline"), "--policy", bootPolicy, "--references", references, "-o", "json")
	var v appraisal.Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 1 {
		t.Fatalf("appraise -o json: exit code %d, %v: %s", code, err, out)
	}
	if v.Trusted || len(v.Levels) != 5 || v.Levels[3].Status != appraisal.Fail {
		t.Errorf("appraise -o json: got %+v, want level 4 failed", v)
	}
	for _, key := range []string{`"trusted"`, `"levels"`, `"rule"`, `"provenance"`, `"event"`, `"expected"`, `"observed"`, `"cause"`, `"remedy"`} {
		if !strings.Contains(out, key) {
			t.Errorf("appraise -o json: no %s in it", key)
		}
	}
}

func TestAppraiseEAR(t *testing.T) {
	code, out, errOut := run(t, "appraise", pack(t, "good"), "--policy", bootPolicy, "--references", references, "-o", "ear")
	var claims struct {
		Profile string `json:"eat_profile"`
		Submods map[string]struct {
			Status string `json:"ear.status"`
		} `json:"submods"`
	}
	if err := json.Unmarshal([]byte(out), &claims); err != nil || code != 0 {
		t.Fatalf("appraise -o ear: exit code %d, %v: %s%s", code, err, out, errOut)
	}
	if claims.Profile == "" || claims.Submods["worker"].Status != "affirming" {
		t.Errorf("appraise -o ear: got %+v, want an affirming worker", claims)
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 0, "five levels"},
		{[]string{"--help"}, 0, "Available Commands"},
		{[]string{"--version"}, 0, "version"},
		{[]string{"frobnicate"}, 2, `unknown command "frobnicate"`},
		{[]string{"policy", "frobnicate"}, 2, `unknown command "frobnicate"`},
		{[]string{"why"}, 2, "touchstone why --help"},
		{[]string{"reference", "import", "x.rpm"}, 2, "neither a .deb nor a .sha256"},
		{[]string{"reference", "import"}, 2, "requires at least 1 arg"},
		{[]string{"evidence", "pack"}, 2, "--quote-msg"},
		{[]string{"evidence", "collect", "--nonce", "xyz"}, 2, "hexadecimal"},
		{[]string{"evidence", "collect", "--tpm", "unix:/nonexistent"}, 2, "swtpm running"},
		{[]string{"token", "create", "--uses", "0"}, 2, "--uses"},
		{[]string{"demo", "exec", "worker-1", "/bin/x"}, 2, "which demo"},
		{[]string{"nodes"}, 1, "no operator bundle"},
	} {
		t.Setenv("TOUCHSTONE_OPERATOR", "")
		code, out, errOut := run(t, tc.args...)
		if code != tc.code || !strings.Contains(out+errOut, tc.want) {
			t.Errorf("touchstone %q: got exit code %d and %q%q, want %d and %q", tc.args, code, out, errOut, tc.code, tc.want)
		}
	}
}

func TestPluginName(t *testing.T) {
	var o bytes.Buffer
	app := &App{Out: &o, Err: &o, In: strings.NewReader(""), Now: time.Now}
	if code := app.Run(context.Background(), []string{"/usr/local/bin/kubectl-trust", "why"}); code != 2 || !strings.Contains(o.String(), "kubectl trust why --help") {
		t.Errorf("kubectl-trust why: exit code %d, %q, want kubectl trust in the message", code, o.String())
	}
}

func TestPolicyCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	code, out, errOut := run(t, "policy", "default")
	if code != 0 || !strings.Contains(out, "# ") {
		t.Fatalf("policy default: exit code %d, %s", code, errOut)
	}
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut = run(t, "policy", "check", path); code != 0 || !strings.Contains(out, "valid policy") {
		t.Errorf("policy check of the default: exit code %d, %s%s", code, out, errOut)
	}
	bad := "apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: x}\nspec: {exceptions: [{rule: no.such.rule, allow: fail, reason: r}]}\n"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut = run(t, "policy", "check", path); code != 2 || !strings.Contains(errOut, "no.such.rule") {
		t.Errorf("policy check of an exception without rule: exit code %d, %s", code, errOut)
	}
	if code, out, _ = run(t, "policy", "rules"); code != 0 || !strings.Contains(out, "kernel.command-line") {
		t.Errorf("policy rules: exit code %d, %s", code, out)
	}
}

func TestReferenceCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "refs")
	list := filepath.Join(t.TempDir(), "site.sha256")
	if err := os.WriteFile(list, []byte(strings.Repeat("ab", 32)+"  /usr/bin/tool\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := run(t, "reference", "import", list, "--references", dir, "--note", "ours", "-o", "json")
	var written []kept
	if err := json.Unmarshal([]byte(out), &written); err != nil || code != 0 || len(written) != 1 || written[0].Files != 1 {
		t.Fatalf("reference import: exit code %d, %v: %s%s", code, err, out, errOut)
	}
	code, out, errOut = run(t, "reference", "capture", pack(t, "good"), "--references", dir)
	if code != 0 || !strings.Contains(out, "node good") {
		t.Fatalf("reference capture: exit code %d: %s%s", code, out, errOut)
	}
	code, out, _ = run(t, "reference", "list", "--references", dir)
	for _, want := range []string{"node good", "site.sha256", "ours", "capture"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("reference list: exit code %d, no %q in:\n%s", code, want, out)
		}
	}
	if code, _, errOut = run(t, "reference", "capture", "worker-7"); code != 2 || !strings.Contains(errOut, "--operator") {
		t.Errorf("reference capture of a node without operator bundle: exit code %d, %s", code, errOut)
	}
}

func TestEvidenceShow(t *testing.T) {
	path := pack(t, "good")
	code, out, _ := run(t, "evidence", "show", path, "--events", "--ima")
	for _, want := range []string{"EV_EFI_VARIABLE_DRIVER_CONFIG", "/modules/15-virtio_blk.ko", "48 events", "12 entries"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("evidence show: exit code %d, no %q", code, want)
		}
	}
	if code, out, _ = run(t, "evidence", "show", path, "-o", "json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("evidence show -o json: exit code %d, valid JSON is %v", code, json.Valid([]byte(out)))
	}
}
