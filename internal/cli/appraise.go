package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
	"touchstone.dev/touchstone/internal/version"
)

func (a *App) appraiseCmd() *cobra.Command {
	var policyFile, references string
	cmd := &cobra.Command{
		Use:   "appraise EVIDENCE",
		Short: "Judge an Evidence document offline, without a server",
		Long: `Judge an Evidence document offline, without a server. Freshness and enrolment are not judged: there is no challenge and no key that
AIAS knows. Exit code 0: trusted; 1: not trusted; 2: the Evidence (or a file named here) cannot be read.

-o ear prints the claims of an Attestation Result (EAR). They are not signed: only AIAS can do that.`,
		Annotations: map[string]string{moreFormats: "ear"},
		Args:        cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := a.verifier(policyFile, references)
			if err != nil {
				return unreadable(err)
			}
			doc, err := a.readEvidence(args[0])
			if err != nil {
				return unreadable(err)
			}
			return a.appraise(v, doc, args[0])
		},
	}
	cmd.Flags().StringVar(&policyFile, "policy", "", "policy `FILE` (default: the default policy, see `policy default`)")
	cmd.Flags().StringVar(&references, "references", "", "`FOLDER` of references (default: none)")
	return cmd
}

// verifier compiles policy and references.
func (a *App) verifier(policyFile, references string) (*verifier.Verifier, error) {
	p, err := policy.Parse(policy.Default())
	if policyFile != "" {
		_, p, err = a.readPolicy(policyFile)
	}
	if err != nil {
		return nil, err
	}
	var refs *reference.Set
	if references != "" {
		refs, err = reference.Load(references)
	} else {
		refs, err = reference.Compile(nil)
	}
	if err != nil {
		return nil, err
	}
	return verifier.New(p, refs)
}

func (a *App) readEvidence(path string) (*evidence.Document, error) {
	data, err := a.readFile(path, evidence.MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("read the Evidence: %w", err)
	}
	doc, err := evidence.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doc, nil
}

func (a *App) appraise(v *verifier.Verifier, doc *evidence.Document, path string) error {
	out, err := v.Appraise(doc, verifier.Expectation{Now: a.Now()})
	if errors.Is(err, verifier.ErrResume) {
		return unreadable(fmt.Errorf("%s is one part of a worker's Evidence: %w", path, err))
	}
	if err != nil {
		return unreadable(fmt.Errorf("%s: %w", path, err))
	}
	name := doc.Node
	if name == "" {
		name = filepath.Base(path)
	}
	if a.output == "ear" {
		err = a.printEAR(v, doc, out, name)
	} else {
		err = a.show(out.Verdict, func(w io.Writer) { a.Style.Verdict(w, name, out.Verdict) })
	}
	if err == nil && !out.Verdict.Trusted {
		err = &exitError{code: ExitNotTrusted}
	}
	return err
}

// printEAR prints the claims that AIAS would sign. They are taken from a Result that is signed with a key nobody keeps, so that they
// are the same in every detail.
func (a *App) printEAR(v *verifier.Verifier, doc *evidence.Document, out *verifier.Outcome, name string) error {
	r := &result.Result{
		Node: name, Trusted: out.Verdict.Trusted, Snapshot: out.Snapshot, ID: result.NewID(), Build: version.String(),
		Issued: a.Now(), Expires: a.Now().Add(v.Policy().Spec.Attestation.MaxAge.Duration),
	}
	if ak, err := tpm.ParsePublic(doc.AK); err == nil {
		r.AKName = hex.EncodeToString(ak.Name())
	}
	if c := out.Checkpoint; c != nil {
		r.ResetCount, r.RestartCount = c.ResetCount, c.RestartCount
	}
	for i := range out.Verdict.Levels {
		l := &out.Verdict.Levels[i]
		r.Levels = append(r.Levels, result.Level{Level: l.Level, Name: l.Name, Status: l.Status, Reason: l.Reason()})
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := result.NewKey(private)
	if err != nil {
		return err
	}
	token, err := result.Sign(key, r)
	if err != nil {
		return err
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return err
	}
	return a.printJSON(json.RawMessage(payload))
}
