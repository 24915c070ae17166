package policy

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the schema of the spec into the manifest of TrustPolicy")

const manifest = "../../api/v1alpha1/crds/touchstone.dev_trustpolicies.yaml"

// TestManifest: the spec of the Kubernetes object TrustPolicy is the Spec of this package, field by field, word by word. With -update
// (scripts/generate) the manifest is written.
func TestManifest(t *testing.T) {
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var crd map[string]any
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	version := crd["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	fields := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)["properties"].(map[string]any)
	want := schemaOf(t, reflect.TypeFor[Spec](), comments(t))
	want["description"] = "Spec is what AIAS appraises by, by level; what is left out is the strict choice (touchstone policy default)."
	if *update {
		fields["spec"] = want
		text, err := yaml.Marshal(crd)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(manifest, append([]byte("---\n"), text...), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := yaml.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any // numbers as YAML reads them
	if err := yaml.Unmarshal(b, &plain); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain, fields["spec"]); diff != "" {
		t.Errorf("%s: the schema of spec does not follow from policy.Spec: run scripts/generate\n%s", manifest, diff)
	}
}

// limits of lists and texts; the whole document is bounded by MaxSize.
const (
	maxItems = 10000
	maxText  = 4096
)

// schemaOf is the structural schema of a type.
func schemaOf(t *testing.T, typ reflect.Type, docs map[string]string) map[string]any {
	t.Helper()
	switch {
	case typ == reflect.TypeFor[Duration]():
		return map[string]any{"type": "string", "maxLength": 32, "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`}
	case typ == reflect.TypeFor[Time]():
		return map[string]any{"type": "string", "maxLength": 40, "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T.*)?$`}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return schemaOf(t, typ.Elem(), docs)
	case reflect.String:
		return map[string]any{"type": "string", "maxLength": maxText}
	case reflect.Int:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "maxItems": maxItems, "items": schemaOf(t, typ.Elem(), docs)}
	case reflect.Struct:
		return objectOf(t, typ, docs)
	}
	t.Fatalf("policy.Spec has a %s: say in schemaOf how it looks in a schema", typ)
	return nil
}

func objectOf(t *testing.T, typ reflect.Type, docs map[string]string) map[string]any {
	t.Helper()
	properties, required := map[string]any{}, []any{}
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		s := schemaOf(t, field.Type, docs)
		if words := strings.Fields(field.Tag.Get(wordsTag)); len(words) > 0 {
			delete(s, "maxLength")
			s["enum"] = words
		}
		if doc := docs[typ.Name()+"."+field.Name]; doc != "" {
			s["description"] = doc
		}
		properties[name] = s
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// comments are those of the fields in policy.go, by "Type.Field", and of the types of fields that have none.
func comments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "policy.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	types, docs := map[string]string{}, map[string]string{}
	each := func(fn func(string, *ast.StructType)) {
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				spec := d.Specs[0].(*ast.TypeSpec)
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = strings.ReplaceAll(strings.TrimSpace(d.Doc.Text()), "\n", " ")
					fn(spec.Name.Name, s)
				}
			}
		}
	}
	each(func(string, *ast.StructType) {})
	each(func(name string, s *ast.StructType) {
		for _, f := range s.Fields.List {
			doc := strings.TrimSpace(f.Comment.Text())
			if ident, ok := f.Type.(*ast.Ident); ok && doc == "" {
				doc = types[ident.Name]
			}
			docs[name+"."+f.Names[0].Name] = doc
		}
	})
	return docs
}
