package kubeapi

import (
	"context"
	"net/http"
	"net/url"
)

// Manager is the field manager under which objects are applied.
const Manager = "aias"

// ConfigMap is what is kept of a ConfigMap.
type ConfigMap struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]any    `json:"metadata"`
	Data       map[string]string `json:"data"`
}

// ApplyConfigMap makes the keys of data what they should be, and makes the ConfigMap when it is not there. Who else wrote these keys loses them.
// It needs the right to create and patch that ConfigMap.
func (c *Client) ApplyConfigMap(ctx context.Context, namespace, name string, data map[string]string) error {
	in := ConfigMap{APIVersion: "v1", Kind: "ConfigMap", Data: data, Metadata: map[string]any{"name": name, "namespace": namespace}}
	path := "/api/v1/namespaces/" + url.PathEscape(namespace) + "/configmaps/" + url.PathEscape(name) + "?fieldManager=" + Manager + "&force=true"
	var out ConfigMap
	// JSON is YAML, and this is its media type here.
	return c.do(ctx, http.MethodPatch, path, "application/apply-patch+yaml", in, &out)
}
