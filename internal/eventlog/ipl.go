package eventlog

import (
	"bytes"
	"strings"
)

// Kinds of EV_IPL events: who measured what.
const (
	KindGRUBCommand       = "grub_cmd"            // PCR 8: a command as GRUB ran it
	KindGRUBKernelCmdline = "grub_kernel_cmdline" // PCR 8: the kernel's command line, the kernel's path first
	KindGRUBModuleCmdline = "grub_module_cmdline" // PCR 8: the command line of a multiboot module
	KindGRUBFile          = "grub_file"           // PCR 9: path of a file that GRUB read; the digest covers its content
	KindMOK               = "mok"                 // PCR 14: name of a shim variable; the digest covers its content
	KindSystemd           = "systemd"             // PCR 8, 11, 12, 13: systemd-stub and systemd-boot, UTF-16
	KindText              = "text"                // any other text
)

// IPL is what an EV_IPL event of a boot loader says. The kind comes from the PCR and from a prefix in the data, and the prefix isn't covered by the
// digest: GRUB hashes the text behind "grub_cmd: " or "kernel_cmdline: ". So a hostile log can name a command a command line and
// the other way round; a rule on command lines must hold for all texts of PCR 8, not only for those of one kind.
type IPL struct {
	Kind string
	// Text is without prefix and final NUL: command, path, variable name or section name.
	Text string
	// Section is set for KindSystemd when Text is a section name (".linux"), which systemd-stub logs twice: once with the digest of the name, once with
	// that of the section.
	Section bool
}

// grubPrefixes are GRUB's own, and those of Red Hat's GRUB before it (RHEL 8).
var grubPrefixes = []struct{ prefix, kind string }{
	{"grub_cmd: ", KindGRUBCommand},
	{"kernel_cmdline: ", KindGRUBKernelCmdline},
	{"module_cmdline: ", KindGRUBModuleCmdline},
	{"grub_cmd ", KindGRUBCommand},
	{"grub_kernel_cmdline ", KindGRUBKernelCmdline},
	{"grub_module_cmdline ", KindGRUBModuleCmdline},
}

// cutGRUBPrefix returns what follows GRUB's prefix, and the kind that the prefix tells.
func cutGRUBPrefix(text string) (rest, kind string, ok bool) {
	for _, p := range grubPrefixes {
		if rest, ok := strings.CutPrefix(text, p.prefix); ok {
			return rest, p.kind, true
		}
	}
	return "", "", false
}

// IPL decodes an EV_IPL event. Bytes that are no text are ErrData.
func (e *Event) IPL() (*IPL, error) {
	if e.Type != IPLType {
		return nil, e.wrongType("IPL event")
	}
	wide := looksUTF16(e.Data)
	text, err := e.Text()
	if err != nil {
		return nil, err
	}
	out := &IPL{Kind: KindText, Text: text}
	switch {
	case wide && (e.PCR == 8 || e.PCR >= 11 && e.PCR <= 13):
		out.Kind, out.Section = KindSystemd, e.PCR == 11 && strings.HasPrefix(text, ".")
	case e.PCR == 8:
		if rest, kind, ok := cutGRUBPrefix(text); ok {
			out.Kind, out.Text = kind, rest
		}
	case e.PCR == 9:
		out.Kind = KindGRUBFile
	case e.PCR == 14:
		out.Kind = KindMOK
	}
	return out, nil
}

// iplPreimages returns what the digest of an EV_IPL event may have been taken over.
func (e *Event) iplPreimages() [][]byte {
	text := bytes.TrimSuffix(e.Data, []byte{0})
	out := [][]byte{e.Data, text}
	if e.PCR == 8 {
		if rest, _, ok := cutGRUBPrefix(string(text)); ok {
			// Red Hat's older GRUB measured the final NUL too.
			out = append(out, []byte(rest), append([]byte(rest), 0))
		}
	}
	if looksUTF16(e.Data) {
		out = append(out, bytes.TrimSuffix(e.Data, []byte{0, 0}))
		// systemd-stub measures the section's name in ASCII with its NUL and logs it in UTF-16.
		if s, ok := utf16Text(e.Data); ok {
			out = append(out, append([]byte(s), 0))
		}
	}
	return out
}
