package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

func refusal403(kind string) error {
	return &Refusal{Problem: protocol.Problem{Type: kind, Title: "no", Status: http.StatusForbidden}}
}

// TestEnrolsAnew: what an agent does whose AIAS does not know it any more.
func TestEnrolsAnew(t *testing.T) {
	const other = "urn:touchstone:problem:old-certificate"
	for _, tc := range []struct {
		name      string
		refusal   string // of Evidence, until it has enrolled
		token     bool
		refused   int           // enrolments that are refused
		back      time.Duration // after which AIAS has its data again; 0: never
		enrolled  bool
		attests   bool
		logs      string
		fewerThan int // enrolments that are tried
	}{
		{"with a token", protocol.ProblemNotEnrolled, true, 0, 0, true, true, "enrolled anew", 2},
		{"with a token that is refused at first", protocol.ProblemNotEnrolled, true, 5, 0, true, true, "it could not enrol anew", 7},
		{"with a token that is refused for ever", protocol.ProblemNotEnrolled, true, 1 << 30, 0, false, false, "touchstone token create --node worker-1", 60},
		{"data restored meanwhile", protocol.ProblemNotEnrolled, true, 1 << 30, 5 * time.Minute, false, true, "it could not enrol anew", 20},
		{"without a token", protocol.ProblemNotEnrolled, false, 0, 0, false, false, "no tokenFile gives the right to enrol anew: run `touchstone token create --node worker-1`", 1},
		{"enrolled elsewhere", other, true, 0, 0, false, false, "trying again", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var log bytes.Buffer
				w.log = slog.New(slog.NewTextHandler(&log, nil))
				if tc.token {
					w.cfg.TokenFile = filepath.Join(t.TempDir(), "token")
					if err := os.WriteFile(w.cfg.TokenFile, []byte("secret"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				old, err := LoadIdentity(w.cfg.StateDir)
				if err != nil {
					t.Fatal(err)
				}
				start, tried, enrolled := time.Now(), 0, false
				w.enrolWith = func(_ context.Context, _ TPM, token string, before *Identity) (*Identity, *protocol.Challenge, error) {
					if tried++; token != "secret" || before == nil || before.Node != old.Node {
						t.Errorf("enrolled with %q after %+v, want the token of the file and the old enrolment", token, before)
					}
					if tried <= tc.refused {
						return nil, nil, refusal403("urn:touchstone:problem:token")
					}
					enrolled = true
					return old, nil, old.Save(w.cfg.StateDir)
				}
				w.link.next = func(int) (*protocol.Attestation, error) {
					if enrolled || tc.back > 0 && time.Since(start) > tc.back {
						return nil, nil
					}
					return nil, refusal403(tc.refusal)
				}
				if err := w.run(30*time.Minute, nil); err != nil {
					t.Errorf("Run: %v", err)
				}
				last := w.reports[len(w.reports)-1]
				if enrolled != tc.enrolled || (last.Err == nil) != tc.attests || tried >= tc.fewerThan {
					t.Errorf("enrolled %v after %d tries, last attestation: %v; want %v, %v, fewer than %d", enrolled, tried, last.Err, tc.enrolled, tc.attests, tc.fewerThan)
				}
				if !strings.Contains(log.String(), tc.logs) {
					t.Errorf("log: want %q in\n%.3000s", tc.logs, log.String())
				}
				if _, err := LoadIdentity(w.cfg.StateDir); err != nil {
					t.Errorf("the enrolment: %v, want it kept until there is another", err)
				}
			})
		})
	}
}

// TestOtherRoot: an AIAS with another root is one that has lost its data only when the configuration, which a person or the cluster keeps, knows that root.
func TestOtherRoot(t *testing.T) {
	server, root, pin := aias(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{}`)) })
	_, oldRoot, oldPin := aias(t, nil)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		name         string
		ca           string // of the enrolment
		caFile, hash string
		want         bool
	}{
		{"the file has the new root", oldRoot, file(root), "", true},
		{"the file has both", oldRoot, file(root + oldRoot), "", true},
		{"the pin is the new root's", oldRoot, "", pin, true},
		{"the file has the old root still", oldRoot, file(oldRoot), "", false},
		{"the pin is the old root's", oldRoot, "", oldPin, false},
		{"nothing but the enrolment", oldRoot, "", "", false},
		{"the same AIAS", root, file(root), "", false},
		{"an enrolment without a root", "", file(root), "", false},
		{"no file", oldRoot, "/nonexistent", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.Server, w.cfg.CAFile, w.cfg.CAHash, w.cfg.TokenFile = server.URL, tc.caFile, tc.hash, "token"
			id := &Identity{Node: "worker-1", CA: tc.ca}
			var f *forgotten
			trust, err := trustFrom(&Config{}, &Identity{CA: oldRoot})
			if err != nil {
				t.Fatal(err)
			}
			c, err := newClient(server.URL, trust, nil, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, broken := c.Challenge(t.Context())
			if !brokenTLS(broken) {
				t.Fatalf("brokenTLS(%v): got false", broken)
			}
			got := w.judge(t.Context(), id, broken)
			if errors.As(got, &f) != tc.want {
				t.Errorf("judge(): got %v, want forgotten: %v", got, tc.want)
			}
			if !tc.want && !strings.Contains(got.Error(), "give the agent its new root") {
				t.Errorf("judge(): got %v, want it to say what to do", got)
			}
		})
	}
	for _, err := range []error{errors.New("connection refused"), refusal403("urn:touchstone:problem:role"), context.DeadlineExceeded} {
		if brokenTLS(err) {
			t.Errorf("brokenTLS(%v): got true", err)
		}
	}
}
