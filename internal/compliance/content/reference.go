package content

import (
	"fmt"
	"strings"
)

const referenceHead = `# The baseline

The security baseline that comes with Touchstone, for the hosts of kubelets and for container images that keep their packages with dpkg (Debian, Ubuntu). How to use
it: [compliance](../compliance.md). This page is made from the rules (` + "`internal/compliance/content`" + `); a test holds both equal.

Version %s, SHA-256 ` + "`%s`" + `. The same version is the same bytes in each build: ` + "`touchstone compliance content`" + ` says which one a program has, and writes it.

On a system without dpkg nothing of it applies, and a scan of which nothing applies is an error, no pass.

Profiles: ` + "`%s`" + ` (W below) and ` + "`%s`" + ` (I). The id of a rule is ` + "`%srule_NAME`" + `.

Limits: rules on sshd, sudo and the kubelet read the files that Debian and kubeadm use, line by line: a setting that is made elsewhere (command line, included files in
other folders) is not seen. SUID programs are looked for in the folders of programs and of temporary files, not everywhere.

| rule | severity | profiles | what holds |
|---|---|---|---|
`

// Reference describes the baseline for people, as Markdown.
func Reference() string {
	var b strings.Builder
	fmt.Fprintf(&b, referenceHead, Version, Digest(), Worker, Image, prefix)
	for i := range rules {
		r := &rules[i]
		in := ""
		for _, p := range []struct {
			bit  int
			name string
		}{{worker, "W"}, {image, "I"}} {
			if r.profiles&p.bit != 0 {
				in += p.name
			}
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s |\n", r.name, r.name, r.severity, in, r.title)
	}
	for i := range rules {
		r := &rules[i]
		var refs []string
		for _, ref := range strings.Fields(r.refs) {
			words, address := cite(ref)
			refs = append(refs, "["+words+"]("+address+")")
		}
		fmt.Fprintf(&b, "\n## %s\n%s. %s\n\n", r.name, r.title, r.why)
		for _, c := range r.checks {
			fmt.Fprintf(&b, "- `%s`\n", strings.ReplaceAll(c.says, "`", "'"))
		}
		fmt.Fprintf(&b, "\nRemedy: %s\n\n%s\n", r.fix, strings.Join(refs, ", "))
	}
	return b.String()
}
