package rules

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
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

// fill puts in what is not the same on all machines: the agent's program, and the home of root.
func fill(text, agent string) string {
	return strings.NewReplacer("{{agent}}", agent, "{{root}}", "/root").Replace(text)
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
