// Package version tells which build of Touchstone is running.
package version

import "runtime/debug"

// version is set by the linker (scripts/build).
var version string

// String returns the version that was stamped at build time ("v0.1.0-3-gcf1a7e2"), else what the go command recorded (the
// module's version, or the commit's first 12 digits), else "devel". It is never empty.
func String() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	return fromBuildInfo(info)
}

// fromBuildInfo picks the most telling version out of what the go command recorded.
func fromBuildInfo(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}
