package render

import (
	"fmt"
	"io"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// Disks draws the disks of nodes; below each, what its operator should know.
func (s Style) Disks(w io.Writer, all *protocol.DiskList, now time.Time) {
	rows := make([]row, len(all.Nodes))
	for i := range all.Nodes {
		d := &all.Nodes[i]
		state := cell{"opens", func(text string) string { return s.Status(appraisal.Pass, text) }}
		switch {
		case d.Revoked:
			state = cell{"revoked", func(text string) string { return s.Status(appraisal.Fail, text) }}
		case !d.Ready:
			state = cell{"closed", func(text string) string { return s.Status(appraisal.Warn, text) }}
		}
		rows[i] = row{cells: []cell{plain(Clean(d.Node)), plain(Clean(d.Policy.Mode)), state, plain(lastRecovery(d.Last, now)), plain(inventory(d.Volumes)), plain(diskBindings(d))}, note: s.beneath(diskNotes(d, now))}
	}
	s.list(w, "no worker has disks bound: `touchstone disk bind NODE`", []string{"node", "mode", "now", "last recovery", "volumes", "bindings"}, rows)
	for _, k := range all.Shared {
		text := fmt.Sprintf("shared key %s: %d clients", k.Thumbprint, len(k.Clients))
		if !k.Rotated.IsZero() {
			text += ", rotated"
		}
		if !all.Open {
			text += "; not answered (disks.open in the configuration)"
		}
		s.Paragraph(w, 0, Clean(text))
	}
}

func lastRecovery(l *protocol.DiskLast, now time.Time) string {
	if l == nil {
		return "none"
	}
	word := "refused"
	if l.Released {
		word = "released"
	}
	return word + " " + Span(now.Sub(l.At)) + " ago"
}

// diskNotes is what there is to know about the disks of a node: why they open or not, why the last recovery was refused, what is out of the ordinary.
func diskNotes(d *protocol.Disk, now time.Time) []string {
	notes := []string{Clean(d.Why)}
	if l := d.Last; l != nil && !l.Released && l.Reason != d.Why {
		notes = append(notes, "refused to "+Clean(l.Source)+": "+Clean(l.Reason))
	}
	for _, t := range []struct {
		what  string
		until time.Time
	}{{"clevis may bind", d.BindUntil}, {"maintenance", d.MaintenanceUntil}, {"one recovery is approved", d.ApprovedUntil}} {
		if now.Before(t.until) {
			notes = append(notes, t.what+" for "+Span(t.until.Sub(now)))
		}
	}
	if d.Rebind {
		notes = append(notes, rebindHint)
	}
	return notes
}

// beneath puts texts below a row, each on lines of its own.
func (s Style) beneath(texts []string) string {
	var lines []string
	for _, text := range texts {
		if text != "" {
			lines = append(lines, s.under(text))
		}
	}
	return strings.Join(lines, "\n")
}

const rebindHint = "bind again, a disk may hang on a rotated key: clevis luks report, clevis luks regen"

// DiskBinding draws how a disk of a node is bound.
func (s Style) DiskBinding(w io.Writer, d *protocol.Disk, all *protocol.DiskList) {
	if all.URL == "" {
		s.Paragraph(w, 0, "The keys are made, and AIAS does not listen for clevis: set disks.listen in its configuration, and start it again.")
		return
	}
	signer := ""
	if len(all.Signers) > 0 {
		signer = all.Signers[0]
	}
	s.Paragraph(w, 0, "On "+Clean(d.Node)+", for each disk, within 15 minutes:")
	fmt.Fprintf(w, "\n  clevis luks bind -d DEVICE tang '{\"url\":\"%s/n/%s\",\"thp\":\"%s\"}'\n\n", Clean(all.URL), Clean(d.Node), Clean(signer))
	s.Paragraph(w, 0, "Keep another passphrase of the disk in a safe place: it opens the disk when AIAS cannot be reached.")
}

// Rebinding draws which nodes must bind again after a rotation.
func (s Style) Rebinding(w io.Writer, all *protocol.DiskList) {
	var names []string
	for _, d := range all.Nodes {
		if d.Rebind {
			names = append(names, Clean(d.Node))
		}
	}
	for _, k := range all.Shared {
		for _, c := range k.Clients {
			if !k.Rotated.IsZero() {
				names = append(names, Clean(c.Client))
			}
		}
	}
	if len(names) == 0 {
		s.Paragraph(w, 0, "Rotated. No disk is known to hang on an older key.")
		return
	}
	s.Paragraph(w, 0, "Rotated. To be bound again (clevis luks regen; older keys recover until then): "+strings.Join(names, ", "))
}

// Escrows draws recovery passphrases that AIAS keeps, and what is asked of them.
func (s Style) Escrows(w io.Writer, all []protocol.Escrow, now time.Time) {
	rows := make([]row, len(all))
	for i := range all {
		e := &all[i]
		state := cell{"kept", func(text string) string { return s.Status(appraisal.Pass, text) }}
		var notes []string
		switch {
		case e.ConfirmedBy != "":
			state = cell{"confirmed", func(text string) string { return s.Status(appraisal.Warn, text) }}
		case e.AskedBy != "":
			state = cell{"asked for", func(text string) string { return s.Status(appraisal.Warn, text) }}
		case !e.Taken.IsZero():
			state = cell{"known", func(text string) string { return s.Status(appraisal.Warn, text) }}
		}
		if e.AskedBy != "" {
			notes = append(notes, Clean(e.AskedBy)+": "+Clean(e.Reason))
			next := "another operator confirms: touchstone disk recover " + Clean(e.Node) + " " + Clean(e.Volume) + " --confirm"
			if e.ConfirmedBy != "" {
				next = "confirmed by " + Clean(e.ConfirmedBy) + "; " + Clean(e.AskedBy) + " takes it: --take"
			}
			notes = append(notes, next+"; for "+left(e.Until, now))
		}
		if !e.Taken.IsZero() {
			notes = append(notes, "given to "+Clean(e.TakenBy)+" "+Span(now.Sub(e.Taken))+" ago: put another passphrase in its place, on the volume and here")
		}
		rows[i] = row{cells: []cell{plain(Clean(e.Node)), plain(Clean(e.Volume)), state, plain(e.Deposited.Local().Format(time.DateOnly) + " by " + Clean(e.By))}, note: s.beneath(notes)}
	}
	s.list(w, "AIAS keeps no recovery passphrase: `touchstone disk escrow NODE VOLUME`", []string{"node", "volume", "state", "deposited"}, rows)
}
