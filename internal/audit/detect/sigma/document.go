package sigma

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Limits of one rule.
const (
	MaxDocument = 64 << 10 // bytes of YAML
	maxText     = 1 << 10  // bytes of a value
	maxValues   = 2000     // of a whole rule, after modifiers
	maxRegexp   = 512      // bytes
	maxTokens   = 256      // of a condition
	maxDepth    = 32       // of parentheses and correlations
	maxCount    = 10_000   // that a correlation waits for
	maxSpan     = 7 * 24 * time.Hour
)

// LogSource says which events a rule is for.
type LogSource struct {
	Category   string `json:"category"`
	Product    string `json:"product"`
	Service    string `json:"service"`
	Definition string `json:"definition"`
}

// Document is one Sigma rule or correlation as written.
type Document struct {
	File           string       `json:"-"`
	Title          string       `json:"title"`
	ID             string       `json:"id"`
	Name           string       `json:"name"`
	Status         string       `json:"status"`
	Description    string       `json:"description"`
	Author         string       `json:"author"`
	References     []string     `json:"references"`
	Tags           []string     `json:"tags"`
	Fields         []string     `json:"fields"`
	FalsePositives []string     `json:"falsepositives"`
	Level          string       `json:"level"`
	LogSource      LogSource    `json:"logsource"`
	Correlation    *Correlation `json:"correlation"`
	// Custom is our own section of the rule, for whoever uses the package; nil when the rule has none.
	Custom json.RawMessage `json:"touchstone"`

	Detection map[string]json.RawMessage `json:"detection"`
}

// Levels are the severities, least first.
var Levels = []string{"informational", "low", "medium", "high", "critical"}

var (
	documentStart = regexp.MustCompile(`(?m)^---[ \t]*(?:#.*)?$`)
	uuid          = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	ruleName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
)

// Parse reads the documents of one file. Fields that the specification does not know are left alone, as it asks for.
func Parse(file string, data []byte) ([]Document, error) {
	var out []Document
	for i, part := range documentStart.Split(string(data), -1) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		d, err := parseOne([]byte(part))
		if err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, i+1, err)
		}
		d.File = file
		out = append(out, *d)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: there is no rule in it", file)
	}
	return out, nil
}

func parseOne(text []byte) (*Document, error) {
	if len(text) > MaxDocument {
		return nil, fmt.Errorf("%d bytes are more than %d", len(text), MaxDocument)
	}
	// Strict: the same key twice would silently drop a condition.
	j, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	// Aliases of YAML make a long document of a short one.
	if len(j) > 4*MaxDocument {
		return nil, fmt.Errorf("%d bytes when aliases are followed: more than %d", len(j), 4*MaxDocument)
	}
	d := new(Document)
	if err := json.Unmarshal(j, d); err != nil {
		return nil, err
	}
	return d, d.check()
}

func (d *Document) check() error {
	switch {
	case d.Title == "" || len(d.Title) > 256:
		return errors.New("a rule needs a title of at most 256 characters")
	case d.ID != "" && !uuid.MatchString(d.ID):
		return fmt.Errorf("id %q is no UUID", d.ID)
	case d.Name != "" && !ruleName.MatchString(d.Name):
		return fmt.Errorf("name %q: want letters, digits, _ . and -", d.Name)
	case d.ID == "" && d.Name == "":
		return errors.New("a rule needs an id (a UUID) or a name")
	case d.Level == "":
		d.Level = "medium"
	}
	if levelOf(d.Level) < 0 {
		return fmt.Errorf("level %q: want one of %s", d.Level, strings.Join(Levels, ", "))
	}
	if (d.Correlation == nil) == (d.Detection == nil) {
		return errors.New("a rule has either a detection or a correlation")
	}
	return nil
}

func levelOf(s string) int {
	for i, l := range Levels {
		if l == s {
			return i
		}
	}
	return -1
}

// Key is what names the rule: its name, else its id.
func (d *Document) Key() string {
	if d.Name != "" {
		return d.Name
	}
	return d.ID
}

// conditions returns the condition, or the list of them.
func (d *Document) conditions() ([]string, error) {
	raw, ok := d.Detection["condition"]
	if !ok {
		return nil, errors.New("detection has no condition")
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil || len(many) == 0 {
		return nil, errors.New("condition: want text, or a list of texts")
	}
	return many, nil
}

// decode reads JSON with numbers as they are written.
func decode(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

// timespan reads "90s", "10m", "1h" or "1d".
func timespan(s string) (time.Duration, error) {
	var n int64
	var unit rune
	if _, err := fmt.Sscanf(s+" ", "%d%c ", &n, &unit); err != nil || n <= 0 {
		return 0, fmt.Errorf("timespan %q: want a number and one of s, m, h, d", s)
	}
	units := map[rune]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	u, ok := units[unit]
	if !ok || fmt.Sprintf("%d%c", n, unit) != s {
		return 0, fmt.Errorf("timespan %q: want a number and one of s, m, h, d", s)
	}
	if n > int64(maxSpan/u) {
		return 0, fmt.Errorf("timespan %q: want at most 7d", s)
	}
	return time.Duration(n) * u, nil
}
