package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/reference"
)

// importing is what the import commands share.
type importing struct {
	app                *App
	folder, name, note string
	sbatDate           string
}

func (a *App) importCmd() *cobra.Command {
	im := &importing{app: a}
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Import Debian packages, file lists, revocations, SBAT levels, TPM manufacturers' roots",
		Example: `  touchstone reference import *.deb site.sha256
  touchstone reference import files checksums.txt
  touchstone reference import dbx DBXUpdate.bin
  touchstone reference import sbat SbatLevel_Variable.txt
  touchstone reference import ek-roots tpm-roots/`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MinimumNArgs(1)(cmd, args); err != nil {
				return err
			}
			for _, f := range args {
				if byEnding(f) == nil {
					return fmt.Errorf("%q is neither a .deb nor a .sha256: say what it is (files, dbx, sbat, ek-roots)", f)
				}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return im.each(args, nil) },
	}
	referencesFlag(cmd, &im.folder)
	cmd.PersistentFlags().StringVar(&im.name, "name", "", "`NAME` of the source, where the file itself has none")
	cmd.PersistentFlags().StringVar(&im.note, "note", "", "where it comes from, and why")
	sub := func(use, short string, n cobra.PositionalArgs, run func(args []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: n, RunE: func(_ *cobra.Command, args []string) error { return run(args) }}
		cmd.AddCommand(c)
		return c
	}
	sub("files LIST...", "Lists of SHA-256 and path, as sha256sum writes them", cobra.MinimumNArgs(1),
		func(args []string) error { return im.each(args, reference.ImportFiles) })
	sub("dbx FILE", "A UEFI revocation list: signed DBXUpdate, raw signature lists, or the published JSON", cobra.ExactArgs(1),
		func(args []string) error { return im.each(args, reference.ImportDBX) })
	sbat := sub("sbat FILE", "An SBAT revocation level (CSV, or shim's SbatLevel_Variable.txt)", cobra.ExactArgs(1),
		func(args []string) error { return im.each(args, reference.ImportSBAT) })
	sbat.Flags().StringVar(&im.sbatDate, "date", "", "choose one of several levels, `YYYYMMDDNN` (default: the newest)")
	sub("ek-roots FOLDER", "CA certificates of TPM manufacturers, PEM or DER", cobra.ExactArgs(1), im.ekRoots)
	return cmd
}

// importer reads one file of a kind.
type importer func(io.Reader, reference.Options) (*reference.Source, error)

// byEnding finds the importer of a file by its name; nil when the name does not tell.
func byEnding(name string) importer {
	switch filepath.Ext(name) {
	case ".deb":
		return reference.ImportPackage
	case ".sha256":
		return reference.ImportFiles
	}
	return nil
}

func (im *importing) options(file string) reference.Options {
	return reference.Options{
		File: file, Name: im.name, Note: im.note, Now: im.app.Now(), SBATDate: im.sbatDate,
		Warn: func(m string) { fmt.Fprintf(im.app.Err, "%s: %s\n", filepath.Base(file), render.Clean(m)) },
	}
}

// each imports files one by one, by their endings when read is nil; nothing is written before all could be read.
func (im *importing) each(files []string, read importer) error {
	var sources []reference.Source
	for _, name := range files {
		with := read
		if with == nil {
			with = byEnding(name)
		}
		s, err := im.one(name, with)
		if err != nil {
			if !strings.Contains(err.Error(), name) {
				err = fmt.Errorf("%s: %w", name, err)
			}
			return unreadable(err)
		}
		sources = append(sources, *s)
	}
	return im.app.keep(im.folder, sources)
}

func (im *importing) one(name string, read importer) (*reference.Source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o := im.options(name)
	if info, err := f.Stat(); err == nil {
		o.Size = info.Size()
	}
	p := im.app.newProgress(filepath.Base(name))
	o.Progress = p.update
	defer p.end()
	return read(f, o)
}

func (im *importing) ekRoots(args []string) error {
	s, err := reference.ImportEKRoots(args[0], im.options(args[0]))
	if err != nil {
		return unreadable(err)
	}
	return im.app.keep(im.folder, []reference.Source{*s})
}

// progress draws one line on the terminal for a long import.
type progress struct {
	w     io.Writer // nil: no terminal
	style render.Style
	title string
	last  time.Time
	drawn bool
}

// redraw is how often the line changes at most: calm for the eye, and free for the importer.
const redraw = 100 * time.Millisecond

func (a *App) newProgress(title string) *progress {
	p := &progress{style: a.Style, title: render.Clean(title)}
	if a.Progress {
		p.w = a.Err
	}
	return p
}

func (p *progress) update(done, total int64) {
	if p.w == nil || time.Since(p.last) < redraw {
		return
	}
	p.last, p.drawn = time.Now(), true
	fmt.Fprintf(p.w, "\r\x1b[K%s", p.style.Bar(p.title, done, total))
}

// end takes the line away: what was imported is printed next.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
