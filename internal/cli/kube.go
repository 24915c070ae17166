package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a cluster and a namespace of it, found as kubectl finds them. It asks the API server over plain REST: the clients of every
// kind that there is would be most of the program.
type cluster struct {
	file, context, namespace string
}

func (k *cluster) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.file, "kubeconfig", "", "kubeconfig `FILE` (default $KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&k.context, "context", "", "context of the kubeconfig")
	f.StringVarP(&k.namespace, "namespace", "n", "", "namespace (default that of the context)")
}

func (k *cluster) config() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.file
	o := &clientcmd.ConfigOverrides{CurrentContext: k.context}
	o.Context.Namespace = k.namespace
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, o)
}

// room is the namespace that is meant.
func (k *cluster) room() (string, error) {
	namespace, _, err := k.config().Namespace()
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	if bad := validation.IsDNS1123Label(namespace); len(bad) > 0 {
		return "", fmt.Errorf("namespace %q: %s", namespace, strings.Join(bad, ", "))
	}
	return namespace, nil
}

// open returns a client of the cluster's API server.
func (k *cluster) open() (*rest.RESTClient, error) {
	config, err := k.config().ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster is known: give --kubeconfig FILE or set KUBECONFIG")
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // the Status that errors are
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.Timeout = requestTimeout
	return rest.UnversionedRESTClientFor(config)
}

// get reads one object or a list.
func get(ctx context.Context, c *rest.RESTClient, into any, path ...string) error {
	answer := c.Get().AbsPath(path...).Do(ctx)
	if err := answer.Error(); err != nil { // Raw has but the code of what the server says
		return err
	}
	b, err := answer.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// pageSize is how many objects are asked for at once: a NodeTrust carries its signed result.
const pageSize = "250"

// each reads a list page by page.
func each[T any](ctx context.Context, c *rest.RESTClient, fn func(*T), path string) error {
	for next := ""; ; {
		answer := c.Get().AbsPath(path).Param("limit", pageSize).Param("continue", next).Do(ctx)
		if err := answer.Error(); err != nil {
			return err
		}
		b, err := answer.Raw()
		if err != nil {
			return err
		}
		var list struct {
			metav1.ListMeta `json:"metadata"`
			Items           []T `json:"items"`
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		for i := range list.Items {
			fn(&list.Items[i])
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

// podName reads pod/NAME.
func podName(arg string) (string, error) {
	name, ok := strings.CutPrefix(arg, "pod/")
	if !ok || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("%q is no pod: want pod/NAME", arg)
	}
	return name, nil
}
