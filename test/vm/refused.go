package vm

import (
	"errors"
	"fmt"
)

// BootError says that a machine did not come up.
type BootError struct {
	Machine  string
	Reason   string
	Refusals []string // lines of the console in which firmware, shim, GRUB or the kernel refused something
	Console  string
}

// Error returns the reason, the refusals and the end of the console.
func (e *BootError) Error() string {
	tail := e.Console
	if len(tail) > 2000 {
		tail = "..." + tail[len(tail)-2000:]
	}
	return fmt.Sprintf("machine %s: %s %q\n%s", e.Machine, e.Reason, e.Refusals, tail)
}

// Refused says whether err is that of a boot which firmware, shim, GRUB or the kernel refused.
func Refused(err error) bool {
	var b *BootError
	return errors.As(err, &b) && len(b.Refusals) > 0
}
