package cluster

import (
	"context"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// watched is what others of the cluster see of nodes. It is a watch, because whoever lists 1,000 nodes again and again keeps the API server busy by that alone.
type watched struct {
	mu    sync.Mutex
	nodes map[string]state
	trust map[string]bool // of NodeTrusts
}

// watch begins to; each is called for each change of a node, nil for nobody.
func watch(w *world, each func(*corev1.Node)) *watched {
	w.t.Helper()
	s := &watched{nodes: map[string]state{}, trust: map[string]bool{}}
	c, err := cache.New(w.config, cache.Options{Scheme: w.Scheme()})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	take := func(o any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch o := o.(type) {
		case *corev1.Node:
			t := taints(o)
			s.nodes[o.Name] = state{open(o), strings.Contains(t, "NoSchedule"), strings.Contains(t, "NoExecute"), told(o)}
			if each != nil {
				each(o)
			}
		case *v1alpha1.NodeTrust:
			s.trust[o.Name] = o.Status.Trusted
		}
	}
	for _, o := range []client.Object{&corev1.Node{}, &v1alpha1.NodeTrust{}} {
		i, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := i.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: take, UpdateFunc: func(_, o any) { take(o) }}); err != nil {
			w.t.Fatal(err)
		}
	}
	go func() { _ = c.Start(ctx) }()
	return s
}

// state is what matters of a node; it is made once for each change, because tests look again and again.
type state struct{ open, noSchedule, noExecute, told bool }

// count counts nodes.
func (s *watched) count(is func(name string, n state) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := 0
	for name, n := range s.nodes {
		if is(name, n) {
			c++
		}
	}
	return c
}

// opened counts the nodes that take pods of the class.
func (s *watched) opened() int {
	return s.count(func(_ string, n state) bool { return n.open && !n.noSchedule })
}

// trusted counts those of them whose NodeTrust says that they are trusted.
func (s *watched) trusted() int {
	return s.count(func(name string, n state) bool { return n.open && !n.noSchedule && s.trust[name] })
}

// closed counts the nodes that take no pods any more.
func (s *watched) closed() int {
	return s.count(func(_ string, n state) bool { return !n.open && n.noSchedule })
}

// removed counts the nodes whose pods are removed.
func (s *watched) removed() int {
	return s.count(func(_ string, n state) bool { return n.noExecute })
}

// told counts the nodes of which is told that they fell.
func (s *watched) told() int {
	return s.count(func(name string, n state) bool {
		trusted, known := s.trust[name]
		return known && !trusted && n.told
	})
}

// told says whether the condition says that the node fell.
func told(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == v1alpha1.TrustedCondition && c.Status == corev1.ConditionFalse
	})
}

func open(n *corev1.Node) bool { return n.Labels[v1alpha1.ClassNodeLabelPrefix+"regulated"] == "true" }
