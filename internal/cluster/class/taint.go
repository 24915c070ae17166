package class

import (
	"slices"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
)

var allLevels = []int32{1, 2, 3, 4, 5}

// TaintValue is the value of the taint of a node that is not trusted: the levels that do not hold ("4-5"); empty when no result counts.
func TaintValue(n Node) string {
	if !n.Valid {
		return ""
	}
	return value(slices.DeleteFunc(slices.Clone(allLevels), func(l int32) bool {
		return n.Levels[l] == string(appraisal.Pass) || n.Levels[l] == string(appraisal.Warn)
	}))
}

// Untrusted are the values of that taint with which a node may meet the class as far as levels go: every set of the levels that the class leaves out.
func Untrusted(spec *v1alpha1.TrustClassSpec) []string {
	if len(spec.Levels) == 0 {
		return nil
	}
	free := slices.DeleteFunc(slices.Clone(allLevels), func(l int32) bool { return slices.Contains(spec.Levels, l) })
	var values []string
	for set := 1; set < 1<<len(free); set++ {
		var levels []int32
		for i, l := range free {
			if set&(1<<i) != 0 {
				levels = append(levels, l)
			}
		}
		values = append(values, value(levels))
	}
	return values
}

func value(levels []int32) string {
	words := make([]string, len(levels))
	for i, l := range levels {
		words[i] = strconv.Itoa(int(l))
	}
	return strings.Join(words, "-")
}
