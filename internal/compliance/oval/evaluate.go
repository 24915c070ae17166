package oval

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Finding is a vulnerability that a root has.
type Finding struct {
	ID        string `json:"id"` // CVE-...
	Severity  string `json:"severity"`
	Package   string `json:"package"`
	Installed string `json:"installed"`
	Fixed     string `json:"fixed,omitempty"`
}

// Report is what a feed says of a root.
type Report struct {
	Findings []Finding `json:"findings"`
	// Judged is how many definitions apply or could: the rest is for other systems. Undecided ones could not be evaluated; a report with any is not good.
	Judged    int `json:"judged"`
	Undecided int `json:"undecided"`
	Packages  int `json:"packages"`
}

// answer of a test or of criteria (OVAL 5.10, evaluation of criteria).
type answer int

const (
	unasked answer = iota
	yes
	no
	unknown
	beside // does not apply
)

// evaluation is one run over one root.
type evaluation struct {
	feed     *Feed
	root     *os.Root
	packages Packages
	answers  []answer
}

// Evaluate holds the definitions of a feed against a root.
func (f *Feed) Evaluate(dir string) (*Report, error) {
	packages, err := ReadPackages(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was read
	e := &evaluation{feed: f, root: root, packages: packages, answers: make([]answer, len(f.tests))}
	r := &Report{Findings: []Finding{}, Undecided: f.Unsupported, Packages: len(packages)}
	for i := range f.definitions {
		d := &f.definitions[i]
		switch e.node(&d.criteria) {
		case yes:
			r.Judged++
			r.Findings = append(r.Findings, e.finding(d))
		case no:
			r.Judged++
		case unknown, unasked:
			r.Undecided++
		case beside:
		}
	}
	return r, nil
}

func (e *evaluation) node(n *node) answer {
	a := beside
	if n.test >= 0 {
		a = e.test(n.test)
	} else {
		decides, other := no, yes // of AND
		if n.or {
			decides, other = yes, no
		}
		for i := range n.kids {
			k := e.node(&n.kids[i])
			if k == decides {
				a = decides
				break
			}
			if k == unknown || k == other && a == beside {
				a = k
			}
		}
	}
	if n.negate && (a == yes || a == no) {
		a = yes + no - a
	}
	return a
}

func (e *evaluation) test(i int) answer {
	if e.answers[i] == unasked {
		switch t := &e.feed.tests[i]; t.kind {
		case ofPackage:
			e.answers[i] = t.judge(e.ofPackage(t))
		case ofText:
			met, err := e.ofText(t)
			if e.answers[i] = t.judge(met); err != nil {
				e.answers[i] = unknown
			}
		default:
			e.answers[i] = beside
		}
	}
	return e.answers[i]
}

// judge turns what was found, and whether each meets the state, into an answer.
func (t *test) judge(met []bool) answer {
	there := len(met) > 0
	switch t.existence {
	case "none_exist":
		return truth(!there)
	case "only_one_exists":
		if len(met) != 1 {
			return no
		}
	case "any_exist":
		if !there {
			return yes
		}
	default:
		if !there {
			return no
		}
	}
	if !t.state {
		return yes
	}
	good := 0
	for _, m := range met {
		if m {
			good++
		}
	}
	switch t.check {
	case "all":
		return truth(good == len(met))
	case "at least one":
		return truth(good > 0)
	case "none satisfy":
		return truth(good == 0)
	}
	return truth(good == 1)
}

func truth(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (e *evaluation) ofPackage(t *test) []bool {
	var met []bool
	for _, p := range e.packages[t.name] {
		met = append(met, t.state && compares(t.operation, Compare(p.Version, t.value)))
	}
	return met
}

func compares(operation string, d int) bool {
	switch operation {
	case "equals":
		return d == 0
	case "not equal":
		return d != 0
	case "less than":
		return d < 0
	case "less than or equal":
		return d <= 0
	case "greater than":
		return d > 0
	}
	return d >= 0
}

// expression compiles a pattern as OVAL means it: "^" and "$" are those of lines. Nil when it is not of the kind that is known here.
func expression(p string) *regexp.Regexp {
	x, err := regexp.Compile("(?m)" + p)
	if err != nil {
		return nil
	}
	return x
}

// maxTextFile is how much of a text file is looked at, in bytes.
const maxTextFile = 1 << 20

func (e *evaluation) ofText(t *test) ([]bool, error) {
	f, err := openRegular(e.root, strings.TrimPrefix(path.Clean(t.name), "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	b, err := io.ReadAll(io.LimitReader(f, maxTextFile))
	if err != nil {
		return nil, err
	}
	var met []bool
	for i, m := range expression(t.pattern).FindAllSubmatch(b, -1) {
		if t.instance == 0 || t.instance == i+1 {
			met = append(met, t.matches(m[1:]))
		}
	}
	return met, nil
}

func (t *test) matches(groups [][]byte) bool {
	if len(groups) == 0 {
		return false
	}
	return !slices.ContainsFunc(groups, func(g []byte) bool {
		switch t.operation {
		case "not equal":
			return string(g) == t.value
		case "pattern match":
			return !expression(t.value).Match(g)
		}
		return string(g) != t.value
	})
}

// finding names the package that a definition is true for.
func (e *evaluation) finding(d *definition) Finding {
	f := Finding{ID: d.name, Severity: d.severity}
	e.blame(&d.criteria, &f)
	return f
}

func (e *evaluation) blame(n *node, f *Finding) {
	for i := range n.kids {
		e.blame(&n.kids[i], f)
	}
	if n.test < 0 || f.Package != "" || e.answers[n.test] != yes {
		return
	}
	if t := &e.feed.tests[n.test]; t.kind == ofPackage && len(e.packages[t.name]) > 0 {
		f.Package, f.Installed = t.name, e.packages[t.name][0].Version
		if t.operation == "less than" {
			f.Fixed = strings.TrimPrefix(t.value, "0:")
		}
	}
}
