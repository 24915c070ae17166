package content

import (
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// check is one OVAL test with what it is about. A rule holds when all its checks do.
type check struct {
	test      string // element, with its prefix
	existence string // check_existence
	object    string // content of the object
	links     bool   // symbolic links are no such objects: their modes mean nothing
	state     string // content of the state; empty: existence is all
	says      string // for the documentation
}

// absent: none of the packages is installed. Each is asked for by its whole name: oscap 1.3.7 knows no patterns here, and says "absent".
func absent(packages ...string) []check {
	var out []check
	for _, p := range packages {
		out = append(out, check{test: "linux:dpkginfo", existence: "none_exist", says: "package " + p + " is not installed", object: "<linux:name>" + text(p) + "</linux:name>"})
	}
	return out
}

// installed: the package is installed.
func installed(p string) check {
	return check{test: "linux:dpkginfo", existence: "at_least_one_exists", says: "package " + p + " is installed", object: "<linux:name>" + text(p) + "</linux:name>"}
}

// each makes one check for each folder.
func each(dirs []string, f func(string) check) []check {
	var out []check
	for _, d := range dirs {
		out = append(out, f(d))
	}
	return out
}

// noFile: nothing in the folder has such a name.
func noFile(dir, name string) check {
	return check{test: "unix:file", existence: "none_exist", says: "no file " + shown(dir, name), object: inDir(dir, name)}
}

func inDir(dir, name string) string {
	return fmt.Sprintf(`<unix:path%s</unix:path><unix:filename operation="pattern match">%s</unix:filename>`, folderIs(dir), text("^"+name+"$"))
}

// shown is a pattern of files for people.
func shown(dir, name string) string {
	if name == ".*" {
		name = "*"
	}
	return strings.NewReplacer(`\.`, ".", "[^/]*", "*", "[^/]+", "*", home+"/", "~root/").Replace(dir + "/" + name)
}

// folderIs is what follows the name of an element path. A pattern makes oscap walk the tree below what is literal in it: of /usr for minutes.
func folderIs(dir string) string {
	if strings.ContainsAny(dir, `\\()|*?[`) {
		return ` operation="pattern match">` + text("^"+dir+"$")
	}
	return ">" + text(dir)
}

// Bits of a file's mode that a state denies, in the order of the schema of OVAL.
var bits = []struct {
	bit  uint32
	name string
}{{0o4000, "suid"}, {0o2000, "sgid"}, {0o040, "gread"}, {0o020, "gwrite"}, {0o010, "gexec"}, {0o004, "oread"}, {0o002, "owrite"}, {0o001, "oexec"}}

// denied is a state in which root owns a file, if that is asked for, and the bits are not set.
func denied(root bool, mask uint32) string {
	var b strings.Builder
	if root {
		b.WriteString(`<unix:user_id datatype="int">0</unix:user_id>`)
	}
	for _, x := range bits {
		if mask&x.bit != 0 {
			fmt.Fprintf(&b, `<unix:%s datatype="boolean">false</unix:%s>`, x.name, x.name)
		}
	}
	return b.String()
}

// owned: root owns what matches, and nobody has the bits. What is not there does no harm.
func owned(dir, name string, mask uint32) check {
	return check{test: "unix:file", existence: "any_exist", links: true, object: inDir(dir, name), state: denied(true, mask), says: fmt.Sprintf("%s belongs to root, without mode bits %04o", shown(dir, name), mask)}
}

// onlyRoot: root owns the files of a folder, and nobody else writes them.
func onlyRoot(dir string) check { return owned(dir, ".*", 0o022) }

// ofGroup: what matches has one of the groups.
func ofGroup(dir, name, groups, says string) check {
	return check{test: "unix:file", existence: "any_exist", links: true, object: inDir(dir, name), says: fmt.Sprintf("%s is of group %s", shown(dir, name), says),
		state: fmt.Sprintf(`<unix:group_id operation="pattern match">^(%s)$</unix:group_id>`, groups)}
}

// without: no file in the folder but those that match except has the bits.
func without(dir, except string, mask uint32) check {
	return check{test: "unix:file", existence: "any_exist", links: true, object: inDir(dir, "(?!("+except+")$).*"), state: denied(false, mask),
		says: fmt.Sprintf("no file in %s has mode bits %04o, but those Debian's own packages may bring", dir, mask)}
}

func itself(dir string) string {
	return `<unix:path>` + text(dir) + `</unix:path><unix:filename xsi:nil="true"/>`
}

// folder: root owns the folder, and nobody else writes it.
func folder(dir string) check {
	return check{test: "unix:file", existence: "any_exist", links: true, object: itself(dir), state: denied(true, 0o022), says: dir + " belongs to root, without mode bits 0022"}
}

// sticky: who may write the folder does not remove the files of others.
func sticky(dir string) check {
	return check{test: "unix:file", existence: "any_exist", links: true, object: itself(dir), state: `<unix:sticky datatype="boolean">true</unix:sticky>`, says: dir + " has mode bit 1000"}
}

func lines(dir, name, line string) string {
	return fmt.Sprintf(`<ind:path%s</ind:path><ind:filename operation="pattern match">%s</ind:filename><ind:pattern operation="pattern match">%s</ind:pattern><ind:instance datatype="int" operation="greater than or equal">1</ind:instance>`,
		folderIs(dir), text("^"+name+"$"), text(line))
}

// never: no line of the files matches.
func never(dir, name, line string) check {
	return check{test: "ind:textfilecontent54", existence: "none_exist", object: lines(dir, name, line), says: fmt.Sprintf("no line of %s matches %s", shown(dir, name), line)}
}

// setting is a rule of the worker on settings of the kernel.
func setting(name string, severity xccdf.Severity, title, why, refs string, checks ...check) rule {
	var words []string
	for _, c := range checks {
		words = append(words, c.fix())
	}
	fix := "put into /etc/sysctl.d/60-baseline.conf, then sysctl --system: " + strings.Join(words, ", ")
	return rule{name, severity, worker, title, why, fix, refs, checks}
}

// fix is a line of sysctl.conf that makes a setting as it must be.
func (c *check) fix() string {
	return strings.NewReplacer(" is at least ", "=", " is ", "=", ", if there is such a setting", "").Replace(c.says)
}

func kernel(name, operation, says string, value int) check {
	return check{test: "unix:sysctl", existence: "at_least_one_exists", object: "<unix:name>" + text(name) + "</unix:name>",
		state: fmt.Sprintf(`<unix:value datatype="int" operation="%s">%d</unix:value>`, operation, value), says: fmt.Sprintf("%s %s %d", name, says, value)}
}

// exactly: a setting of the kernel has the value.
func exactly(name string, value int) check { return kernel(name, "equals", "is", value) }

// atLeast: a setting of the kernel is not below the value.
func atLeast(name string, value int) check {
	return kernel(name, "greater than or equal", "is at least", value)
}

// ifThere: the same, and a kernel without the setting cannot do what it forbids.
func ifThere(c check) check {
	c.existence, c.says = "any_exist", c.says+", if there is such a setting"
	return c
}
