package version

import (
	"runtime/debug"
	"testing"
)

func TestFromBuildInfo(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "cf1a7e2000000000000000000000000000000000"}}
	tests := []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"module version", debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}, Settings: commit}, "v0.1.0"},
		{"commit", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: commit}, "cf1a7e200000"},
		{"short commit", debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "cf1"}}}, "devel"},
		{"nothing", debug.BuildInfo{}, "devel"},
	}
	for _, tt := range tests {
		if got := fromBuildInfo(&tt.info); got != tt.want {
			t.Errorf("%s: fromBuildInfo(%v): got %q, want %q", tt.name, tt.info, got, tt.want)
		}
	}
}

func TestStringStamped(t *testing.T) {
	defer func(old string) { version = old }(version)
	version = "v9.9.9"
	if got := String(); got != "v9.9.9" {
		t.Errorf("String() with a stamped version: got %q, want %q", got, "v9.9.9")
	}
	version = ""
	if got := String(); got == "" {
		t.Error("String() without a stamped version: got an empty string")
	}
}
