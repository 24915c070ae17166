package agent

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// hostPlatform is what images of an index are chosen by here.
func hostPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }
