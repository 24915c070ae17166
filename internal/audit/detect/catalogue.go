package detect

import (
	"fmt"
	"slices"
	"strings"
)

// catalogueHead opens docs/detections.md.
const catalogueHead = `# Detections

What Touchstone finds in the audit events of workers, by the rules that come with it. This page is made from the rules
(` + "`internal/audit/detect/rules`" + `); a test holds both equal.

Rules look at what the kernel stamped on an event. A rule that believes what a program says (its records of user space) is marked, and only ever warns: any
process with CAP_AUDIT_WRITE can write such a record. Whether an event comes from a pod is the agent's word, from the process's cgroup when the event came in.

**Effect** is what a detection does to level 5 (runtime) of the node: *fail* costs trust, *warn* does not, *none* only counts together with others.
**Until** says when that ends by itself; an operator can clear each detection before, with a reason that goes into the ledger. The policy can give a
severity or a single rule another effect ([policy](reference/policy.md)).

## Rules of your own
AIAS reads Sigma rules (.yml) from the folder ` + "`detectionRules`" + ` of its configuration, and again on ` + "`touchstone reload`" + `; one that it cannot mean as written is
refused with its reason, and the old rules stay. Log sources: product linux with service auditd, or category process_creation, file_event or network_connection. Fields: those
of the kernel's records as they are (exe, comm, uid, auid, key, ...), those of Sigma's taxonomy that audit has (Image, CommandLine, CurrentDirectory, User, TargetFilename,
DestinationIp, DestinationPort, ProcessId, ParentProcessId, LogonId), and what is worked out of an event: syscall (by name), access (read, write, create, attr, exec), path (whole),
mode_set (suid, sgid), ns, request, argument, dest_ip, dest_port, socket_path, where (pod, host, unknown), k8s.pod, k8s.namespace, k8s.container, k8s.image, unit, login, and
msg.NAME for what programs claim. A map that names a type matches a single record of that type. A rule can only find what an audit rule tells of.

A section of ours says what a detection does; without it a rule warns for a day:

` + "```" + `yaml
touchstone:
  effect: fail         # fail, warn or none
  clears: time         # time (with for), operator, or fixed (with fixedBy: boot, or names of rules)
  for: 24h
  subject: [exe]       # fields that tell detections of this rule apart
  remedy: what to do
  userspace: false     # true: the rule may look at msg.NAME, and cannot fail
` + "```" + `

## What could not be judged
Nothing is left out silently. Two detections are no rules of ours, and are seen, judged and cleared like the others, with their number and the entries of the chain that they are about: ` + "`unreadable-events`" + ` (events that AIAS cannot
read) and ` + "`forgotten-correlations`" + ` (a storm made AIAS forget what it follows over time). Both have severity medium, warn, and end a day after they were seen last; the policy can make them fail. More matches of a rule than are kept one by one (20 new
ones in a minute, 500 of a worker in all) are counted in one detection, ` + "`(more)`" + `, with that rule's effect.

Techniques are those of [MITRE ATT&CK](https://attack.mitre.org/).
`

// Catalogue describes the rules of a set for people, as Markdown.
func Catalogue(s *Set) string {
	var b strings.Builder
	b.WriteString(catalogueHead)
	var files []string
	for _, r := range s.list {
		if !slices.Contains(files, r.Doc.File) {
			files = append(files, r.Doc.File)
		}
	}
	b.WriteString("\n| rule | severity | effect | until | techniques |\n|---|---|---|---|---|\n")
	for i := range s.list {
		r := &s.list[i]
		if s.silentNone(i) {
			continue
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s |\n", r.Doc.Name, r.Doc.Name, r.Doc.Level, r.Effect.Effect, r.Effect.Until(), strings.Join(r.Techniques, ", "))
	}
	for _, f := range files {
		fmt.Fprintf(&b, "\n## %s\n", heading(f))
		for i := range s.list {
			if s.list[i].Doc.File == f {
				s.describe(&b, i)
			}
		}
	}
	return b.String()
}

// silentNone reports whether a rule is nothing but a part of another one.
func (s *Set) silentNone(i int) bool {
	return s.list[i].Effect.Effect == None && (s.rules.Silent(i) || len(s.list[i].fixes) > 0)
}

func heading(file string) string {
	name := strings.ReplaceAll(strings.TrimSuffix(file, ".yml"), "_", " ")
	return strings.ToUpper(name[:1]) + name[1:]
}

func (s *Set) describe(b *strings.Builder, i int) {
	r := &s.list[i]
	d, e := r.Doc, r.Effect
	fmt.Fprintf(b, "\n### %s\n\n**%s.** %s\n\n", d.Name, d.Title, d.Description)
	if s.silentNone(i) {
		fmt.Fprintf(b, "Says nothing by itself.\n")
		return
	}
	fmt.Fprintf(b, "- severity %s; effect %s; until: %s; techniques %s\n", d.Level, e.Effect, e.Until(), strings.Join(r.Techniques, ", "))
	if feeds := s.rules.Feeds(i); feeds != nil {
		var names []string
		for _, n := range feeds {
			names = append(names, s.list[n].Doc.Name)
		}
		fmt.Fprintf(b, "- made of: %s, within %s\n", strings.Join(names, ", "), d.Correlation.Timespan)
	}
	if d.LogSource.Definition != "" {
		fmt.Fprintf(b, "- needs: %s\n", d.LogSource.Definition)
	}
	if e.UserSpace {
		fmt.Fprintf(b, "- believes what programs say: can be forged\n")
	}
	if len(e.Subject) > 0 {
		fmt.Fprintf(b, "- told apart by: %s\n", strings.Join(e.Subject, ", "))
	}
	if len(d.FalsePositives) > 0 {
		fmt.Fprintf(b, "- harmless causes: %s\n", strings.Join(d.FalsePositives, "; "))
	}
	if e.Remedy != "" {
		fmt.Fprintf(b, "- what to do: %s\n", e.Remedy)
	}
}
