package policy

import (
	"reflect"
	"strings"
)

// wordsTag is the tag of fields that take one of some words; the first is the strict one, and what a field left out means.
const wordsTag = "words"

// eachWord calls fn for each field of fixed words, with its name as in the document ("firmware.known").
func eachWord(s *Spec, fn func(name string, field *string, words []string)) {
	eachWordOf(reflect.ValueOf(s).Elem(), "", fn)
}

func eachWordOf(v reflect.Value, prefix string, fn func(string, *string, []string)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if words := strings.Fields(field.Tag.Get(wordsTag)); len(words) > 0 {
			fn(prefix+name, v.Field(i).Addr().Interface().(*string), words)
		} else if field.Type.Kind() == reflect.Struct && field.IsExported() {
			eachWordOf(v.Field(i), prefix+name+".", fn)
		}
	}
}
