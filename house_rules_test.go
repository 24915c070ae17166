package touchstone_test

import (
	"os"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
)

// TestRulesAreDocumented: whoever reads the name of a rule in a finding finds it in the documents.
func TestRulesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("docs/reference/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range appraisal.RuleNames() {
		if !strings.Contains(string(b), "| "+name+" |") && !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("docs/reference/rules.md does not explain rule %s", name)
		}
	}
}
