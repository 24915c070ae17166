package touchstone_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are what a person reads: README and everything in docs.
func (h *house) documents() map[string]string {
	docs := map[string]string{}
	for name, text := range h.texts {
		if path.Ext(name) == ".md" && (name == "README.md" || strings.HasPrefix(name, "docs/")) {
			docs[name] = text
		}
	}
	return docs
}

var (
	makeCommand = regexp.MustCompile("(?m)(?:`|^\\$? *)make +([a-z][a-z0-9-]*)")
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	link        = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	codeBlock   = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")
	inlineCode  = regexp.MustCompile("`([^`\n]+)`")
	program     = regexp.MustCompile(`^(?:\$ )?(?:bin/)?((?:touchstone|aias|trust-agent|trust-controller)(?: .*)?)$`)
)

// TestDocumentedTargets: each `make X` that a document names is a target of the Makefile.
func TestDocumentedTargets(t *testing.T) {
	h := theHouse(t)
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(h.texts["Makefile"], -1) {
		targets = append(targets, m[1])
	}
	for name, text := range h.documents() {
		for _, m := range makeCommand.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s: names make %s, want one of %q", name, m[1], targets)
			}
		}
	}
}

// TestDocumentedLinks: each relative link of a document leads to a file or folder.
func TestDocumentedLinks(t *testing.T) {
	for name, text := range theHouse(t).documents() {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.FromSlash(path.Join(path.Dir(name), m[1]))); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
}

// commands returns the command lines of our own programs that text shows in code blocks and as inline code.
func commands(text string) []string {
	var lines []string
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.Split(strings.ReplaceAll(block[1], "\\\n", " "), "\n")...)
	}
	for _, m := range inlineCode.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	var found []string
	for _, line := range lines {
		if m := program.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			command, _, _ := strings.Cut(m[1], " #")
			found = append(found, strings.TrimSpace(command))
		}
	}
	return found
}

// programs are those whose documented commands are tried; each must be built with cobra, whose help names what it understood.
var programs = []string{"touchstone", "trust-agent", "aias", "trust-controller"}

// TestDocumentedCommands: each command, and each flag on it, that a document names is known to the program; and each command of the program is in the reference of
// commands.
func TestDocumentedCommands(t *testing.T) {
	dir := t.TempDir()
	for _, prog := range programs {
		bin := filepath.Join(dir, prog)
		if out, err := exec.Command("go", "build", "-o", bin, "./cmd/"+prog).CombinedOutput(); err != nil {
			t.Fatalf("go build ./cmd/%s: %v\n%s", prog, err, out)
		}
		documented := commands(theHouse(t).texts[cliReference])
		for _, command := range allCommands(t, bin, []string{prog}) {
			if !slices.ContainsFunc(documented, func(line string) bool { return line == command || strings.HasPrefix(line, command+" ") }) {
				t.Errorf("%s: there is no `%s`", cliReference, command)
			}
		}
		if prog == "trust-controller" {
			for _, flag := range helpFlags(t, bin) {
				if text := theHouse(t).texts[controllerReference]; !strings.Contains(text, "`"+flag+"`") {
					t.Errorf("%s: there is no flag `%s`", controllerReference, flag)
				}
			}
		}
		for name, text := range theHouse(t).documents() {
			for _, command := range commands(text) {
				if words := strings.Fields(command); words[0] == prog {
					if problem := tryHelp(bin, words[1:]); problem != "" {
						t.Errorf("%s: `%s`: %s", name, command, problem)
					}
				}
			}
		}
	}
}

// Documents that name all commands, and all flags of a program that has no configuration file.
const (
	cliReference        = "docs/reference/cli.md"
	controllerReference = "docs/reference/controller.md"
)

var (
	subcommands = regexp.MustCompile(`(?ms)^Available Commands:\n(.*?)(?:\n\n|\z)`)
	flagLine    = regexp.MustCompile(`(?m)^ +(?:-[a-z], |    )(--[a-z][a-z0-9-]*)`)
)

// allCommands returns the commands below words that have none below them, as one types them.
func allCommands(t *testing.T, bin string, words []string) []string {
	t.Helper()
	out, err := exec.Command(bin, append(slices.Clone(words[1:]), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q --help: %v\n%s", words, err, out)
	}
	m := subcommands.FindStringSubmatch(string(out))
	if m == nil {
		return []string{strings.Join(words, " ")}
	}
	var all []string
	for _, line := range strings.Split(m[1], "\n") {
		name := strings.Fields(line)[0]
		if name == "help" || name == "completion" { // cobra's own
			continue
		}
		all = append(all, allCommands(t, bin, append(slices.Clone(words), name))...)
	}
	return all
}

// helpFlags returns the flags of a program.
func helpFlags(t *testing.T, bin string) []string {
	t.Helper()
	out, err := exec.Command(bin, "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%s --help: %v\n%s", bin, err, out)
	}
	var flags []string
	for _, m := range flagLine.FindAllStringSubmatch(string(out), -1) {
		if m[1] != "--help" && m[1] != "--version" {
			flags = append(flags, m[1])
		}
	}
	if len(flags) == 0 {
		t.Fatalf("%s --help names no flag:\n%s", bin, out)
	}
	return flags
}

var (
	usageLine = regexp.MustCompile(`(?m)^Usage:\n\s+(.*)$`)
	flagWord  = regexp.MustCompile(`^--?[a-zA-Z][a-zA-Z0-9-]*`)
)

// tryHelp asks the program for help on a command line and compares what it understood with what is there; "" means all of it.
func tryHelp(bin string, words []string) string {
	end := slices.IndexFunc(words, func(w string) bool { return !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(w) })
	if end < 0 {
		end = len(words)
	}
	out, err := exec.Command(bin, append(slices.Clone(words[:end]), "--help")...).CombinedOutput()
	if err != nil {
		return "its help fails: " + err.Error()
	}
	usage := usageLine.FindStringSubmatch(string(out))
	if usage == nil {
		return "its help has no usage line"
	}
	// The usage line begins with the program and the command that was understood. The next word, when there is one, must be an
	// argument, not a command that does not exist.
	understood := strings.Fields(usage[1])[1:]
	n := 0
	for n < end && n < len(understood) && understood[n] == words[n] {
		n++
	}
	if n < end && (n == 0 || strings.Contains(string(out), "Available Commands:")) {
		return "there is no such command: " + strings.Join(words[:n+1], " ")
	}
	for _, word := range words[end:] {
		if flag := flagWord.FindString(word); flag != "" && !regexp.MustCompile(regexp.QuoteMeta(flag)+`[ ,\n]`).Match(out) {
			return "there is no flag " + flag
		}
	}
	return ""
}

func TestCommandsInText(t *testing.T) {
	text := "See `touchstone why NODE` and `make demo`.\n```\n$ touchstone appraise worker.cbor \\\n  --policy p.yaml  # offline\nls\n```\n"
	got := commands(text)
	want := []string{"touchstone appraise worker.cbor    --policy p.yaml", "touchstone why NODE"}
	if !slices.Equal(got, want) {
		t.Errorf("commands(%q): got %q, want %q", text, got, want)
	}
}
