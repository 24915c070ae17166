package device

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrOtherState says that a TPM does not unseal because PCRs have not the values that the secret was sealed to.
var ErrOtherState = errors.New("PCRs have other values than when the secret was sealed: the machine boots something else")

// MaxSealed is the most bytes that Seal takes: what every PC Client TPM holds in one object.
const MaxSealed = 128

// Seal has the TPM encrypt a secret under its storage root key, so that only this TPM decrypts it, and only while the PCRs of the selection
// have the values that they have now. An empty selection asks for no PCRs. It returns a TPM2B_PUBLIC and a TPM2B_PRIVATE; neither is secret.
// The secret does not travel in plain between processor and TPM.
func (t *TPM) Seal(secret []byte, pcrs tpm.Selection) (public, private []byte, err error) {
	if len(secret) == 0 || len(secret) > MaxSealed {
		return nil, nil, fmt.Errorf("TPM: seal %d bytes, want 1 to %d", len(secret), MaxSealed)
	}
	err = t.do("seal", func() error {
		template := tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true, UserWithAuth: pcrs.PCRs == 0},
		}
		if pcrs.PCRs != 0 {
			policy, err := t.pcrPolicy(pcrs)
			if err != nil {
				return err
			}
			template.AuthPolicy = tpm2.TPM2BDigest{Buffer: policy}
		}
		return t.withSRK(func(srk tpm2.NamedHandle, salted tpm2.AuthOption) error {
			rsp, err := tpm2.Create{
				ParentHandle: tpm2.AuthHandle{Handle: srk.Handle, Name: srk.Name,
					Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, salted, tpm2.AESEncryption(128, tpm2.EncryptIn))},
				InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
					Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
				InPublic: tpm2.New2B(template),
			}.Execute(t.link)
			if err != nil {
				return err
			}
			public, private = tpm2.Marshal(rsp.OutPublic), tpm2.Marshal(rsp.OutPrivate)
			return nil
		})
	})
	return public, private, err
}

// Unseal returns what Seal sealed with the same selection. A TPM that the secret was not sealed by says so; PCRs with other values are
// ErrOtherState.
func (t *TPM) Unseal(public, private []byte, pcrs tpm.Selection) (secret []byte, err error) {
	err = t.do("unseal", func() error {
		pub, err := tpm2.Unmarshal[tpm2.TPM2BPublic](public)
		if err != nil {
			return fmt.Errorf("%w: public part: %w", tpm.ErrMalformed, err)
		}
		priv, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](private)
		if err != nil {
			return fmt.Errorf("%w: private part: %w", tpm.ErrMalformed, err)
		}
		return t.withSRK(func(srk tpm2.NamedHandle, salted tpm2.AuthOption) error {
			object, err := withRoom(t, func() (*tpm2.LoadResponse, error) {
				return tpm2.Load{ParentHandle: tpm2.AuthHandle{Handle: srk.Handle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)},
					InPublic: *pub, InPrivate: *priv}.Execute(t.link)
			})
			if err != nil {
				return fmt.Errorf("this TPM did not seal it, or was cleared since: %w", err)
			}
			t.loaded[object.ObjectHandle] = true
			defer t.flush(object.ObjectHandle)
			rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{
				Handle: object.ObjectHandle, Name: object.Name, Auth: unsealAuth(pcrs, salted),
			}}.Execute(t.link)
			if errors.Is(err, tpm2.TPMRCPolicyFail) {
				return ErrOtherState
			}
			if err == nil {
				secret = rsp.OutData.Buffer
			}
			return err
		})
	})
	return secret, err
}

// unsealAuth authorizes the use of a sealed object, and has the TPM encrypt its answer.
func unsealAuth(pcrs tpm.Selection, salted tpm2.AuthOption) tpm2.Session {
	encrypted := tpm2.AESEncryption(128, tpm2.EncryptOut)
	if pcrs.PCRs == 0 {
		return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, salted, encrypted)
	}
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(link transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		return policyPCR(link, session, pcrs)
	}, salted, encrypted)
}

// policyPCR binds a policy session to the present values of PCRs.
func policyPCR(link transport.TPM, session tpm2.TPMISHPolicy, pcrs tpm.Selection) error {
	_, err := tpm2.PolicyPCR{PolicySession: session,
		Pcrs: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{wireSelection(pcrs)}}}.Execute(link)
	return err
}

// pcrPolicy returns the digest of the policy that asks for the present values of PCRs.
func (t *TPM) pcrPolicy(pcrs tpm.Selection) ([]byte, error) {
	session, done, err := tpm2.PolicySession(t.link, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return nil, err
	}
	defer done() //nolint:errcheck // a session left over ends with the connection
	if err := policyPCR(t.link, session.Handle(), pcrs); err != nil {
		return nil, err
	}
	rsp, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(t.link)
	if err != nil {
		return nil, err
	}
	return rsp.PolicyDigest.Buffer, nil
}

// withSRK loads the storage root key and runs f with it and with what salts a session to it.
func (t *TPM) withSRK(f func(srk tpm2.NamedHandle, salted tpm2.AuthOption) error) error {
	key, err := t.key(srkECC)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return fmt.Errorf("the owner hierarchy has an authorization: clear it (tpm2_changeauth), or keep the key elsewhere: %w", err)
	}
	if err != nil {
		return err
	}
	return t.with(key, func(srk tpm2.NamedHandle) error {
		public, err := tpm2.Unmarshal[tpm2.TPMTPublic](key.Public())
		if err != nil {
			return err
		}
		return f(srk, tpm2.Salted(srk.Handle, *public))
	})
}
