// Package sigma reads Sigma rules (SigmaHQ specification 2.1: rules, modifiers, correlations) and matches events with them.
//
// The package knows the format, not the log: a Schema says which log sources and fields there are, an Event gives their values. Rules are
// compiled into one Set that is never changed afterwards and shared by everyone; a Matcher is the scratch of one goroutine, a Correlator the
// state of one source of events.
//
// A rule that cannot be meant as written is refused, never taken to match less: unknown modifiers, fields that the schema does not have,
// placeholders without values, conditions that name no selection. Regular expressions are RE2 (no look-around, linear time).
//
// Besides the specification: a map that names a record type (Field.Type) matches when one record of that type has all the fields, so
// that rules written for single audit records keep their meaning on whole events. Correlations that can only be told when their time is over
// (lt, lte) are refused, and so are the time modifiers (minute, hour, ...).
package sigma
