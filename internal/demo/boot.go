package demo

import (
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

// tampered is the boot of the second act: another kernel command line, and Secure Boot switched off in the firmware setup.
func tampered() (*machine.Boot, error) {
	b, err := machine.Read(boots.Files, "corpus/cmdline", false)
	if err != nil {
		return nil, err
	}
	return b.SecureBootOff()
}
