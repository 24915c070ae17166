package cri

import (
	"context"
	"fmt"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version asks the runtime for its name and version.
func (s *Store) Version(ctx context.Context) (name, version string, err error) {
	v, err := s.containers.Version(ctx, &runtime.VersionRequest{Version: "0.1.0"})
	if err != nil {
		return "", "", fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	return v.GetRuntimeName(), v.GetRuntimeVersion(), nil
}
