package demo

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/swtpm/machine"
)

// Exec lets a worker of a demo that was left running in dir execute a program that nobody knows.
func Exec(dir, node, path string) error {
	if !slices.Contains(workers, node) {
		return fmt.Errorf("no worker %q in the demo of %s: use one of %s", node, dir, strings.Join(workers, ", "))
	}
	return machine.Execute(filepath.Join(dir, node), path, []byte("a program that nobody knows: "+path))
}
