// Command record runs the demo and writes what its screen showed: an animated SVG, act by act, and plain text beside it.
//
//	go run ./internal/demo/record docs/demo.svg docs/demo.txt
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"regexp"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: record FILE.svg FILE.txt")
		os.Exit(2)
	}
	if err := record(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, svgFile, textFile string) error {
	var screen bytes.Buffer
	if _, err := demo.Run(ctx, demo.Options{Out: &screen, Style: render.Style{Color: true, Unicode: true, Width: columns}, Fast: true}); err != nil {
		return err
	}
	// The port is another one each time; the documented one is the default.
	text := regexp.MustCompile(`https://127\.0\.0\.1:\d+`).ReplaceAllString(screen.String(), "https://127.0.0.1:8443")
	if err := os.WriteFile(svgFile, animate(frames(text)), 0o644); err != nil { //nolint:gosec // for everybody to see
		return err
	}
	return os.WriteFile(textFile, []byte(sgr.ReplaceAllString(text, "")), 0o644) //nolint:gosec // as above
}
