package sigma

// Schema says which log sources and fields there are.
type Schema interface {
	// Source checks a log source. Every rule of it also has to match the detection that comes back (nil: any event), written as in a rule.
	Source(LogSource) (map[string]any, error)
	// Field resolves a field of a rule of a log source. Rules with a field that is refused are refused.
	Field(src LogSource, name string) (Field, error)
}

// Field is a field of a schema.
type Field struct {
	ID int // below MaxFields, the schema's own
	// Gate says that events tell which values of the field they have (Event.Tokens): 1 for the fields that tell most events apart.
	// 0: they do not.
	Gate int
	// Type says that the field is the type of a record: a map that names it is matched record by record.
	Type bool
	// Check, when not nil, refuses values that the field never has: plain texts only, not patterns.
	Check func(value string) error
	// Keyword marks the field that keywords are looked for in; its name is "".
	Keyword bool
}

// MaxFields bounds the IDs of fields.
const MaxFields = 1 << 12

// Event is what rules are matched with.
type Event interface {
	// Append appends the values of a field to dst: those of one record, or of the whole event when record is negative. They must stay as they are
	// while the event is matched.
	Append(dst [][]byte, field, record int) [][]byte
	// Records is the number of records.
	Records() int
	// Tokens appends, for each value of a field with a gate, TokenOf(field, value).
	Tokens(dst []Token) []Token
}

// Token stands for one value of one field.
type Token uint64

// TokenOf hashes a value, letters of ASCII without their case (FNV-1a). Two values with the same token only cost a needless look at a rule.
func TokenOf(field int, value []byte) Token {
	h := uint64(14695981039346656037) ^ uint64(field)
	h *= 1099511628211
	for _, c := range value {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h ^= uint64(c)
		h *= 1099511628211
	}
	return Token(h)
}
