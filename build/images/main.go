// Command images makes the container images of Touchstone from the source it stands in: an OCI layout with all architectures, a docker archive
// for each, and the values for the Helm chart; with -push it sends them to a registry, too. `make images` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/imagebuild"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root := flag.String("root", ".", "`FOLDER` of the repository")
	out := flag.String("out", "bin/images", "`FOLDER` to write to")
	repository := flag.String("repository", "touchstone.dev", "registry and path `PREFIX` of the image names")
	version := flag.String("version", "devel", "`VERSION` of the programs and tag of the images")
	url := flag.String("source", "https://touchstone.dev/touchstone", "`URL` of the source, a label")
	architectures := flag.String("arch", strings.Join(imagebuild.Architectures, ","), "`LIST` of architectures")
	push := flag.Bool("push", false, "push to the registry that -repository names")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: see -help", flag.Arg(0))
	}
	s := imagebuild.Source{Root: *root, Version: *version, URL: *url}
	built, err := s.Build(ctx, imagebuild.Specs, strings.Split(*architectures, ","))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil { //nolint:gosec // images are for everyone
		return err
	}
	if err := imagebuild.WriteLayout(filepath.Join(*out, "oci"), *repository, *version, built); err != nil {
		return err
	}
	if err := imagebuild.WriteArchives(*out, *repository, *version, built); err != nil {
		return err
	}
	if *push {
		if err := imagebuild.Push(ctx, *repository, *version, built); err != nil {
			return err
		}
	}
	values, err := imagebuild.Values(*repository, *version, built, *push)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"values.yaml": values, "programs.sha256": imagebuild.References(built)} {
		if err := os.WriteFile(filepath.Join(*out, name), content, 0o644); err != nil { //nolint:gosec // images are for everyone
			return err
		}
	}
	for _, b := range built {
		digest, err := b.Index.Digest()
		if err != nil {
			return err
		}
		fmt.Printf("%s/%s:%s  %s\n", *repository, b.Spec.Name, *version, digest)
	}
	fmt.Printf("in %s: OCI layout oci, docker archives *.tar, chart values values.yaml, reference list programs.sha256\n", *out)
	return nil
}
