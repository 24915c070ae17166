package render

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// Volumes draws what workers say of their volumes.
func (s Style) Volumes(w io.Writer, all *protocol.VolumeList) {
	var rows []row
	for i := range all.Nodes {
		n := &all.Nodes[i]
		for j := range n.Volumes {
			v := &n.Volumes[j]
			rows = append(rows, row{
				cells: []cell{plain(Clean(n.Node)), plain(Clean(volumePoint(v))), plain(Clean(v.Device)), plain(binarySize(v.Size)), s.encrypted(v), plain(bindings([]protocol.Volume{*v}))},
				note:  s.beneath(volumeNotes(v)),
			})
		}
		if n.Problem != "" {
			rows = append(rows, row{cells: []cell{plain(Clean(n.Node)), plain(""), plain(""), plain(""), {"unknown", func(text string) string { return s.Status(appraisal.Unknown, text) }}, plain("")},
				note: s.beneath([]string{Clean(n.Problem)})})
		}
	}
	s.list(w, "no worker is enrolled", []string{"node", "volume", "device", "size", "encrypted", "opens by"}, rows)
}

func volumePoint(v *protocol.Volume) string {
	switch {
	case v.Swap:
		return "swap"
	case len(v.Points) == 0:
		return "-"
	case len(v.Points) > 1:
		return fmt.Sprintf("%s and %d more", v.Points[0], len(v.Points)-1)
	}
	return v.Points[0]
}

func (s Style) encrypted(v *protocol.Volume) cell {
	status := map[string]appraisal.Status{"yes": appraisal.Pass, "no": appraisal.Fail}[v.Encrypted]
	if status == "" {
		status = appraisal.Unknown
	}
	return cell{v.Encrypted, func(text string) string { return s.Status(status, text) }}
}

// volumeNotes say why a volume is not encrypted, what it stands on, and why what opens it is not known.
func volumeNotes(v *protocol.Volume) []string {
	notes := []string{Clean(v.Why)}
	if len(v.Layers) > 1 {
		notes = append(notes, Clean(v.Type+" on "+strings.Join(v.Layers, " on ")))
	}
	for _, c := range v.Containers {
		text := strings.TrimSpace(strings.Join([]string{c.Format, c.Cipher, c.Integrity}, " "))
		if c.UUID != "" {
			text += " " + c.UUID
		}
		if c.Why != "" {
			text += ": " + c.Why
		}
		notes = append(notes, Clean(strings.TrimSpace(c.Device+": "+text)))
	}
	return notes
}

// bindings says in a few words what opens volumes.
func bindings(all []protocol.Volume) string {
	var out []string
	for _, v := range all {
		for _, c := range v.Containers {
			for _, b := range c.Bindings {
				if b = Clean(b); !slices.Contains(out, b) {
					out = append(out, b)
				}
			}
			if len(c.Bindings) == 0 && !slices.Contains(out, "not known") {
				out = append(out, "not known")
			}
		}
	}
	return strings.Join(out, ", ")
}

// diskBindings says what opens the volumes of a worker.
func diskBindings(d *protocol.Disk) string {
	if d.Volumes == nil {
		return ""
	}
	return bindings(d.Volumes.Volumes)
}

// inventory says how many volumes of a worker are encrypted.
func inventory(n *protocol.NodeVolumes) string {
	if n == nil || len(n.Volumes) == 0 {
		return "not known"
	}
	yes := 0
	for _, v := range n.Volumes {
		if v.Encrypted == "yes" {
			yes++
		}
	}
	return fmt.Sprintf("%d of %d encrypted", yes, len(n.Volumes))
}

// binarySize is a size in the largest unit that leaves a whole number, or nearly.
func binarySize(n uint64) string {
	const units = "KMGTPE"
	if n == 0 {
		return "-"
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.3g %ciB", f, units[unit])
}
