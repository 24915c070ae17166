package eventlog

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDescription bounds what Describe returns, in characters.
const maxDescription = 200

// Describe returns one line for people on what e says: its type and the gist of its data. Text from the log is quoted when it holds anything but
// printable characters, and the line has at most 200 characters. It doesn't check the digest.
func Describe(e *Event) string {
	s := e.Type.String()
	if g := gist(e); g != "" {
		s += ": " + g
	}
	return clip(s)
}

// gist returns the part of a description that comes from the data.
func gist(e *Event) string {
	switch {
	case e.IsVariable():
		if v, err := e.Variable(); err == nil {
			return fmt.Sprintf("%s-%s, %d bytes", show(v.Name), v.GUID, len(v.Data))
		}
	case e.IsImage():
		if i, err := e.Image(); err == nil {
			if i.Path == "" {
				return fmt.Sprintf("image of %d bytes in memory", i.Length)
			}
			return fmt.Sprintf("%s, %d bytes", show(i.Path), i.Length)
		}
	}
	switch e.Type {
	case NoAction:
		if l, ok := e.StartupLocality(); ok {
			return fmt.Sprintf("StartupLocality %d", l)
		}
		return noActionGist(e.Data)
	case EFIPlatformFirmwareBlob, PostCode, EFIPlatformFirmwareBlob2, EFIHandoffTables, EFIHandoffTables2:
		return blobGist(e)
	case Separator:
		k, _ := e.Separator()
		return fmt.Sprintf("%v (%x)", k, head(e.Data))
	case IPLType:
		if i, err := e.IPL(); err == nil {
			return i.Kind + " " + show(i.Text)
		}
	case EventTag:
		if t, err := e.TaggedEvent(); err == nil {
			return fmt.Sprintf("tag %#x %s", t.ID, showBytes(t.Data))
		}
	case EFIGPT, EFIGPT2:
		if g, err := e.GPT(); err == nil {
			return fmt.Sprintf("disk %s, %d partitions", g.Disk, len(g.Partitions))
		}
	case SCRTMVersion:
		v, _ := e.SCRTMVersion()
		return show(v)
	}
	return showBytes(e.Data)
}

// noActionGist shows the signature that such an event starts with, as "SP800-155 Event3".
func noActionGist(d []byte) string {
	text := d[:min(len(d), 16)]
	for i, c := range text {
		if c < ' ' || c > '~' {
			text = text[:i]
			break
		}
	}
	if len(text) < 4 {
		return showBytes(d)
	}
	return string(text)
}

func blobGist(e *Event) string {
	b, err := e.FirmwareBlob()
	if err != nil {
		return showBytes(e.Data)
	}
	s := fmt.Sprintf("%d bytes at %#x", b.Length, b.Base)
	if e.Type == EFIHandoffTables || e.Type == EFIHandoffTables2 {
		s = fmt.Sprintf("%d tables", len(b.Tables))
	}
	if b.Description != "" {
		s = show(b.Description) + ", " + s
	}
	return s
}

// show returns s as it is when it's printable, else quoted in ASCII.
func show(s string) string {
	s = s[:min(len(s), 4*maxDescription)]
	if printable(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// showBytes shows data as text where it is text, else in hexadecimal.
func showBytes(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	b = head(b)
	if looksUTF16(b) {
		if s, ok := utf16Text(b); ok && printable(s) {
			return s
		}
	}
	if s, ok := plainText(b); ok && s != "" && printable(s) {
		return s
	}
	return fmt.Sprintf("%x", b)
}

// head bounds the work on data that will be clipped anyway.
func head(b []byte) []byte { return b[:min(len(b), 4*maxDescription)] }

// clip bounds a line to maxDescription characters.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= maxDescription {
		return s
	}
	var out strings.Builder
	n := 0
	for _, r := range s {
		if n == maxDescription-3 {
			break
		}
		out.WriteRune(r)
		n++
	}
	return out.String() + "..."
}
