package rules

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed sets/*.rules
var sets embed.FS

// KeyPrefix begins the key of each shipped rule.
const KeyPrefix = "ts-"

// Shipped returns the rules for a worker whose agent is the program at the given path, in the order in which they are loaded.
func Shipped(agent string) ([]Rule, error) {
	if !path.IsAbs(agent) || strings.ContainsAny(agent, " \t\n") {
		return nil, fmt.Errorf("%w: the agent's program %q: want an absolute path without spaces", ErrRule, agent)
	}
	var all []Rule
	err := eachFile(func(name, text string) error {
		for i, line := range strings.Split(fill(text, agent), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			r, err := ParseRule(line)
			if err != nil {
				return fmt.Errorf("%s:%d: %w", name, i+1, err)
			}
			r.File, r.Line = name, i+1
			all = append(all, r)
		}
		return nil
	})
	return all, err
}

// fill puts in what is not the same on all machines: the agent's program, and home folders, for which a line is repeated.
func fill(text, agent string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.ReplaceAll(line, "{{agent}}", agent)
		before, after, repeat := strings.Cut(line, "{{home}}")
		if !repeat || line[0] == '#' {
			b.WriteString(line)
			continue
		}
		name, _, _ := strings.Cut(after, " ")
		for _, home := range homes() {
			if _, err := os.Lstat(home + name); err == nil {
				b.WriteString(before + home + after)
			}
		}
	}
	return b.String()
}

// maxHomes bounds the folders that are watched: each costs the kernel a rule to look at.
const maxHomes = 100

// homes returns the home folders of root and of people, who have numbers from 1000 on.
func homes() []string {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		f := strings.Split(line, ":")
		if len(f) < 7 || len(all) >= maxHomes {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		person := uid == 0 || uid >= 1000 && uid != 65534
		if err == nil && person && path.IsAbs(f[5]) && path.Clean(f[5]) != "/" && !strings.ContainsAny(f[5], " \t") && !slices.Contains(all, f[5]) {
			all = append(all, f[5])
		}
	}
	return all
}

// eachFile gives the shipped files in order.
func eachFile(f func(name, text string) error) error {
	names, err := fs.Glob(sets, "sets/*.rules")
	if err != nil {
		return err
	}
	for _, name := range names { // Glob gives them in order
		text, err := sets.ReadFile(name)
		if err != nil {
			return err
		}
		if err := f(path.Base(name), string(text)); err != nil {
			return err
		}
	}
	return nil
}

// Boot returns the text of the file that augenrules loads when the machine starts.
func Boot(agent string, c Control) (string, error) {
	var b strings.Builder
	b.WriteString("# Written by `trust-agent audit rules install`. Changes are lost when it runs again: put rules of your own into other files.\n\n")
	b.WriteString("# Go on after a rule that fails: a folder that is not there must not take the rest along.\n-c\n")
	fmt.Fprintf(&b, "-b %d\n--backlog_wait_time %d\n\n", c.Backlog, c.Wait)
	err := eachFile(func(_, text string) error {
		b.WriteString(fill(text, agent))
		b.WriteString("\n")
		return nil
	})
	return b.String(), err
}
