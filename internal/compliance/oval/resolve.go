package oval

import "slices"

// resolve puts tests together and ties criteria to them. A definition with a test that is not known counts as unsupported.
func (p *parser) resolve() error {
	index := map[string]int{}
	for id, r := range p.tests {
		if t, ok := p.test(r); ok {
			index[id] = len(p.feed.tests)
			p.feed.tests = append(p.feed.tests, t)
		}
	}
	kept := p.feed.definitions[:0]
	for _, d := range p.feed.definitions {
		if tie(&d.criteria, index) {
			kept = append(kept, d)
		} else {
			p.feed.Unsupported++
		}
	}
	p.feed.definitions = kept
	return nil
}

func tie(n *node, index map[string]int) bool {
	if n.ref != "" {
		i, ok := index[n.ref]
		n.test, n.ref = i, ""
		return ok && len(n.kids) == 0
	}
	for i := range n.kids {
		if !tie(&n.kids[i], index) {
			return false
		}
	}
	return len(n.kids) > 0
}

var (
	checks     = []string{"all", "at least one", "none satisfy", "only one"}
	existences = []string{"", "at_least_one_exists", "all_exist", "any_exist", "none_exist", "only_one_exists"}
	operations = []string{"equals", "not equal", "less than", "less than or equal", "greater than", "greater than or equal"}
)

// test puts a test together; false when something of it is not known.
func (p *parser) test(r *raw) (test, bool) {
	t := test{check: r.fields["check"].text, existence: r.fields["existence"].text}
	if r.bad || !slices.Contains(checks, t.check) || !slices.Contains(existences, t.existence) || !only(r, "check", "existence", "object", "state") {
		return t, false
	}
	if r.element == "uname_test" {
		t.kind = ofKernel
		return t, true
	}
	object, state := p.objects[r.fields["object"].text], (*raw)(nil)
	if object == nil || object.bad {
		return t, false
	}
	if ref, ok := r.fields["state"]; ok {
		if state = p.states[ref.text]; state == nil || state.bad {
			return t, false
		}
		t.state = true
	}
	switch {
	case r.element == "dpkginfo_test" && object.element == "dpkginfo_object":
		return t, t.ofPackage(object, state)
	case r.element == "textfilecontent54_test" && object.element == "textfilecontent54_object":
		return t, t.ofText(object, state)
	}
	return t, false
}

// only reports whether a part has no other fields.
func only(r *raw, names ...string) bool {
	for name := range r.fields {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

func plainly(f field) bool { return f.operation == "" || f.operation == "equals" }

func (t *test) ofPackage(object, state *raw) bool {
	t.kind, t.name = ofPackage, object.fields["name"].text
	if t.name == "" || !plainly(object.fields["name"]) || !only(object, "check", "existence", "name") {
		return false
	}
	if state == nil {
		return true
	}
	f, ok := state.fields["evr"]
	t.operation, t.value = f.operation, f.text
	if t.operation == "" {
		t.operation = "equals"
	}
	return state.element == "dpkginfo_state" && ok && f.datatype == "debian_evr_string" && t.value != "" &&
		slices.Contains(operations, t.operation) && only(state, "check", "existence", "evr")
}

func (t *test) ofText(object, state *raw) bool {
	f := object.fields
	t.kind, t.pattern = ofText, f["pattern"].text
	switch {
	case f["filepath"].text != "":
		t.name = f["filepath"].text
	case f["path"].text != "" && f["filename"].text != "":
		t.name = f["path"].text + "/" + f["filename"].text
	}
	t.instance = atoi(f["instance"].text)
	if f["instance"].operation == "greater than or equal" && t.instance == 1 {
		t.instance = 0
	} else if !plainly(f["instance"]) || t.instance < 1 {
		return false
	}
	if t.name == "" || !plainly(f["filepath"]) || !plainly(f["path"]) || !plainly(f["filename"]) || f["pattern"].operation != "pattern match" ||
		!only(object, "check", "existence", "path", "filename", "filepath", "pattern", "instance") || expression(t.pattern) == nil {
		return false
	}
	if state == nil {
		return true
	}
	s, ok := state.fields["subexpression"]
	t.operation, t.value = s.operation, s.text
	if t.operation == "" {
		t.operation = "equals"
	}
	return state.element == "textfilecontent54_state" && ok && (s.datatype == "" || s.datatype == "string") && only(state, "check", "existence", "subexpression") &&
		(t.operation == "equals" || t.operation == "not equal" || t.operation == "pattern match" && expression(t.value) != nil)
}
