package uefi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits on SBAT data.
const (
	MaxSBAT           = 64 << 10 // bytes of a level or section
	MaxSBATComponents = 512
)

// ErrSBAT marks SBAT data that cannot be read.
var ErrSBAT = errors.New("malformed SBAT data")

// Component is one line of SBAT: a component and its generation, which rises with each security fix that revokes what came before.
type Component struct {
	Name       string // "shim", "grub", "grub.debian"
	Generation uint32
	// Vendor, Package, Version and URL stand in images only.
	Vendor, Package, Version, URL string
}

// Level is an SBAT revocation level, the content of the variable SbatLevel: the least generation of each component that may boot.
type Level struct {
	Date       string      // "2025051000": year, month, day, counter; levels are ordered by it
	Components []Component // without the leading "sbat" line's date; "sbat" itself is the first
}

// ParseSBATLevel reads an SBAT level: "sbat,1,2025051000\nshim,4\ngrub,5\n". A NUL at the end is accepted: shim measures none, the
// efivars file may have one.
func ParseSBATLevel(csv []byte) (Level, error) {
	rows, err := sbatRows(csv)
	if err != nil {
		return Level{}, err
	}
	var l Level
	for i, row := range rows {
		want := 2
		if i == 0 {
			want = 3
		}
		if len(row) != want {
			return Level{}, fmt.Errorf("%w: line %d has %d fields, want %d", ErrSBAT, i+1, len(row), want)
		}
		c, err := component(row)
		if err != nil {
			return Level{}, fmt.Errorf("%w: line %d: %w", ErrSBAT, i+1, err)
		}
		l.Components = append(l.Components, c)
	}
	l.Date = rows[0][2]
	if len(l.Date) != 10 || strings.Trim(l.Date, "0123456789") != "" {
		return Level{}, fmt.Errorf("%w: %q is not a date (want ten digits: year, month, day, counter)", ErrSBAT, l.Date)
	}
	return l, nil
}

// ParseSBAT reads the .sbat section of an image: lines of component, generation, vendor, package, version, URL.
func ParseSBAT(section []byte) ([]Component, error) {
	rows, err := sbatRows(section)
	if err != nil {
		return nil, err
	}
	out := make([]Component, 0, len(rows))
	for i, row := range rows {
		if len(row) != 6 {
			return nil, fmt.Errorf("%w: line %d has %d fields, want 6", ErrSBAT, i+1, len(row))
		}
		c, err := component(row)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrSBAT, i+1, err)
		}
		c.Vendor, c.Package, c.Version, c.URL = row[2], row[3], row[4], row[5]
		out = append(out, c)
	}
	return out, nil
}

// sbatRows splits SBAT data into lines and fields, and checks that the first line is that of SBAT itself.
func sbatRows(b []byte) ([][]string, error) {
	if len(b) > MaxSBAT {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrSBAT, len(b), MaxSBAT)
	}
	text := strings.TrimRight(string(bytes.TrimRight(b, "\x00")), "\r\n")
	var rows [][]string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r == 0x7f || r == 0xfffd }) {
			return nil, fmt.Errorf("%w: line %d has bytes that are no text", ErrSBAT, len(rows)+1)
		}
		if len(rows) == MaxSBATComponents {
			return nil, fmt.Errorf("%w: more than %d lines", ErrSBAT, MaxSBATComponents)
		}
		rows = append(rows, strings.SplitN(line, ",", 8))
	}
	if rows[0][0] != "sbat" {
		return nil, fmt.Errorf("%w: it does not begin with a line for sbat", ErrSBAT)
	}
	return rows, nil
}

func component(row []string) (Component, error) {
	if row[0] == "" || strings.ContainsAny(row[0], " \t") {
		return Component{}, fmt.Errorf("%q is not a component name", row[0])
	}
	n, err := strconv.ParseUint(row[1], 10, 31)
	if err != nil || n == 0 {
		return Component{}, fmt.Errorf("%q is not a generation of %s", row[1], row[0])
	}
	return Component{Name: row[0], Generation: uint32(n)}, nil
}

// Generation returns the generation that l asks of the component, or 0 when it does not name it.
func (l Level) Generation(name string) uint32 {
	for _, c := range l.Components {
		if c.Name == name {
			return c.Generation
		}
	}
	return 0
}

// Revokes returns why an image with these components must not boot at level l: "grub 3, revoked below 5". It returns nil when
// nothing is revoked.
func (l Level) Revokes(components []Component) []string {
	var why []string
	for _, c := range components {
		if want := l.Generation(c.Name); c.Generation < want {
			why = append(why, fmt.Sprintf("%s %d, revoked below %d", c.Name, c.Generation, want))
		}
	}
	return why
}

// AtLeast reports whether l revokes all that o revokes: its date is not older and no generation is lower. A vendor's component
// ("grub.debian") may be missing in l when the generation of the component itself ("grub") rose, as published levels do it.
func (l Level) AtLeast(o Level) bool {
	if l.Date < o.Date {
		return false
	}
	for _, c := range o.Components {
		if l.Generation(c.Name) >= c.Generation {
			continue
		}
		base, _, vendor := strings.Cut(c.Name, ".")
		if !vendor || l.Generation(c.Name) != 0 || l.Generation(base) <= o.Generation(base) {
			return false
		}
	}
	return true
}

// String returns the level as CSV, as the variable holds it.
func (l Level) String() string {
	var b strings.Builder
	for i, c := range l.Components {
		fmt.Fprintf(&b, "%s,%d", c.Name, c.Generation)
		if i == 0 {
			b.WriteString("," + l.Date)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FindSBATLevels reads the levels out of running text, such as SbatLevel_Variable.txt of rhboot/shim: each begins with a line
// "sbat,1,DATE" and goes on as long as lines are components. They come back oldest first; of those with one date, the one with the
// most components last.
func FindSBATLevels(text []byte) ([]Level, error) {
	if len(text) > MaxDatabase {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrSBAT, len(text), MaxDatabase)
	}
	var levels []Level
	var block []string
	flush := func() {
		// A line of prose may begin with "sbat,": it is not a level then.
		if l, err := ParseSBATLevel([]byte(strings.Join(block, "\n"))); err == nil && len(block) > 0 {
			levels = append(levels, l)
		}
		block = nil
	}
	for line := range strings.SplitSeq(string(text)+"\n", "\n") {
		line = strings.TrimSpace(line)
		row := strings.Split(line, ",")
		_, err := component(append(row, ""))
		switch {
		case row[0] == "sbat":
			flush()
			block = []string{line}
		case len(block) > 0 && err == nil && len(row) == 2:
			block = append(block, line)
		default:
			flush()
		}
	}
	if len(levels) == 0 {
		return nil, fmt.Errorf("%w: no line of the form sbat,1,DATE", ErrSBAT)
	}
	slices.SortStableFunc(levels, func(a, b Level) int {
		if c := strings.Compare(a.Date, b.Date); c != 0 {
			return c
		}
		return len(a.Components) - len(b.Components)
	})
	return levels, nil
}
