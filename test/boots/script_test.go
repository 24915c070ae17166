package boots

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
)

// TestScript runs the script appraise, and with it the product's own commands, as a person does.
func TestScript(t *testing.T) {
	program := filepath.Join(t.TempDir(), "touchstone")
	build := exec.Command("go", "build", "-o", program, "../../cmd/touchstone")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		args   []string
		code   int
		levels string
	}{
		{[]string{"corpus/good"}, 0, "ppppp"},
		{[]string{"corpus/good-actions", "--after"}, 1, "ppppf"},
		{[]string{"corpus/mok-enrolled"}, 1, "ppffp"},
		{[]string{"corpus/sb-off"}, 1, "uuufp"},
		{[]string{"corpus/none"}, 2, ""},
		{[]string{"references"}, 2, ""},
		{nil, 2, ""},
	} {
		cmd := exec.Command("./appraise", tt.args...)
		cmd.Env = append(os.Environ(), "TOUCHSTONE="+program)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != tt.code {
			t.Errorf("appraise %q: exit code %d, want %d: %s", tt.args, got, tt.code, out)
			continue
		}
		if tt.levels == "" {
			continue
		}
		var v appraisal.Verdict
		if err := json.Unmarshal(out, &v); err != nil {
			t.Fatalf("appraise %q: %v", tt.args, err)
		}
		got := ""
		for _, l := range v.Levels {
			got += string(l.Status[0])
		}
		if got != tt.levels || v.Trusted != (tt.code == 0) {
			t.Errorf("appraise %q: got %s, trusted %v, want %s", tt.args, got, v.Trusted, tt.levels)
		}
	}
}
