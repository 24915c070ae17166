package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/authority"
)

func backupCommand(o *options) *cobra.Command {
	var out, passphrase string
	var recipients []string
	cmd := &cobra.Command{
		Use: "backup --out FILE (--recipient KEY... | --passphrase-file FILE)", Short: "Write all of AIAS into one encrypted file, also while the service runs", Args: cobra.NoArgs,
		Long: "Write database, ledger and references into one file, encrypted by age to public keys (age-keygen makes them) or to a passphrase. The secrets in it\n" +
			"need no key file, TPM or token of this machine: who can decrypt the file has all keys of AIAS.\n\nThe configuration, a policyFile and other files that it names are not in it.",
		Example: "  aias backup --out aias-monday.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := recipientsOf(recipients, passphrase)
			if err != nil {
				return err
			}
			if out == "" {
				return errors.New("name the file to write: --out FILE, or - for standard output")
			}
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			if out == "-" {
				return s.authority.Backup(cmd.Context(), cmd.OutOrStdout(), to...)
			}
			size, err := writeWhole(out, func(w io.Writer) error { return s.authority.Backup(cmd.Context(), w, to...) })
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, encrypted; try it with aias restore --verify\n", out, size)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "`FILE` to write, - for standard output")
	f.StringArrayVar(&recipients, "recipient", nil, "encrypt to this public `KEY` (age1...); may be repeated")
	f.StringVar(&passphrase, "passphrase-file", "", "encrypt to the passphrase in `FILE` instead")
	return cmd
}

// recipientsOf reads public keys, or a passphrase.
func recipientsOf(keys []string, passphraseFile string) ([]age.Recipient, error) {
	if (len(keys) == 0) == (passphraseFile == "") {
		return nil, errors.New("a backup is encrypted: give either --recipient or --passphrase-file")
	}
	if passphraseFile != "" {
		pass, err := readPassphrase(passphraseFile)
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(pass)
		return []age.Recipient{r}, err
	}
	to, err := age.ParseRecipients(strings.NewReader(strings.Join(keys, "\n")))
	if err != nil {
		return nil, fmt.Errorf("--recipient: %w", err)
	}
	return to, nil
}

func readPassphrase(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	pass := strings.TrimRight(string(b), "\r\n")
	if len(pass) < 12 {
		return "", fmt.Errorf("the passphrase in %s has %d characters: want at least 12", path, len(pass))
	}
	return pass, nil
}

// writeWhole writes a file that is there whole and on disk, or not at all.
func writeWhole(path string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return size, os.Rename(f.Name(), path)
}

func restoreCommand(o *options) *cobra.Command {
	var identity, passphrase string
	var verify, withoutHSM bool
	cmd := &cobra.Command{
		Use: "restore FILE (--identity FILE | --passphrase-file FILE)", Short: "Make the data folder from a backup", Args: cobra.ExactArgs(1),
		Long: "Make the data folder of the configuration, which must not hold an AIAS yet, from a backup. The whole file is read and found whole before anything is\n" +
			"written; stopped at any point, also by kill -9, it leaves no half AIAS: run it again. The secrets are sealed under the key that the configuration names.\n\n" +
			"Exchange keys of disks in an HSM are not in a backup: they are tried in the token that disks.hsm names, and without them nothing is restored, unless\n" +
			"--without-hsm says so.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := identitiesOf(identity, passphrase)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close() //nolint:errcheck // only read
			if verify {
				head, err := authority.VerifyBackup(f, ids...)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is whole: made %s by aias %s\n", args[0], head.Created.Format(time.RFC3339), head.Version)
				}
				return err
			}
			return restore(cmd.Context(), o, f, ids, withoutHSM, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&identity, "identity", "", "`FILE` with the private key (age-keygen)")
	f.StringVar(&passphrase, "passphrase-file", "", "`FILE` with the passphrase")
	f.BoolVar(&verify, "verify", false, "only read the backup, and tell whether it is whole")
	f.BoolVar(&withoutHSM, "without-hsm", false, "restore also when exchange keys of disks are in an HSM that is not here: these disks stay closed until it is")
	return cmd
}

func identitiesOf(identityFile, passphraseFile string) ([]age.Identity, error) {
	if (identityFile == "") == (passphraseFile == "") {
		return nil, errors.New("give either --identity or --passphrase-file")
	}
	if passphraseFile != "" {
		pass, err := readPassphrase(passphraseFile)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(pass)
		return []age.Identity{id}, err
	}
	f, err := os.Open(identityFile)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", identityFile, err)
	}
	return ids, nil
}

func restore(ctx context.Context, o *options, f *os.File, ids []age.Identity, withoutHSM bool, out io.Writer) error {
	c, err := o.load()
	if err != nil {
		return err
	}
	unlock, err := o.lock()
	if err != nil {
		return err
	}
	defer unlock()
	done, err := alone(ctx, c.Data)
	if err != nil {
		return err
	}
	defer done()
	from := authority.Restore
	if withoutHSM {
		from = authority.RestoreWithoutHSM
	}
	head, err := from(ctx, c, f, time.Now(), ids...)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is restored as it was %s; start aias serve\n", c.Data, head.Created.Format(time.RFC3339))
	if withoutHSM && c.Disks.HSM != nil {
		fmt.Fprintln(out, "keys in the HSM were not tried; while its token is away, aias serve starts only without disks.hsm in the configuration")
	}
	if refs := filepath.Join(c.Data, "references"); c.References != refs {
		fmt.Fprintf(out, "the references are in %s; the configuration reads them from %s\n", refs, c.References)
	}
	return nil
}
