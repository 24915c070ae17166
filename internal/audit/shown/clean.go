package shown

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean takes out of foreign text what a terminal would obey: control characters, line breaks and marks that turn the direction
// of writing. They are shown as \xNN or \u{NNNN} instead. Text beyond 2,000 bytes is cut.
func Clean(text string) string {
	const limit = 2000
	var b strings.Builder
	for i, r := range text {
		if i > limit {
			b.WriteString("...")
			break
		}
		switch {
		case r == utf8.RuneError:
			b.WriteRune('\uFFFD')
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co):
			fmt.Fprintf(&b, `\u{%04x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
