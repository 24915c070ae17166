package authority

import (
	"context"
	"strings"
	"time"
)

// How often the ConfigMap with the root certificate is looked after, and tried again at first and at most when that fails.
const (
	publishEvery = 5 * time.Minute
	publishFirst = 500 * time.Millisecond
	publishMost  = 30 * time.Second
)

// Keys of the ConfigMap: the root certificate, as Kubernetes names that of its own, and what results are signed with, by which a controller that starts while AIAS is away
// verifies what was recorded.
const (
	caKey   = "ca.crt"
	jwksKey = "jwks.json"
)

// publishLoop keeps the root certificate and the keys of results in the ConfigMap that agents and controller mount. Somebody who changes it only keeps them from AIAS until it is
// written again: they would show their tokens to another one, so the right to write it belongs to AIAS alone.
func (a *Authority) publishLoop(ctx context.Context) {
	if a.cluster == nil || a.cluster.cfg.CAConfigMap == "" {
		return
	}
	namespace, name, _ := strings.Cut(a.cluster.cfg.CAConfigMap, "/")
	said := false
	for wait := publishFirst; ; {
		err := a.cluster.api.ApplyConfigMap(ctx, namespace, name, map[string]string{caKey: pemCerts(a.ca.root), jwksKey: string(a.jwks)})
		pause := publishEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause, wait = wait, min(2*wait, publishMost)
			a.log.Error("the root certificate could not be published: agents and controller of the cluster wait for it", "configMap", a.cluster.cfg.CAConfigMap, "err", err)
		default:
			wait = publishFirst
			if !said {
				a.log.Info("root certificate published", "configMap", a.cluster.cfg.CAConfigMap)
				said = true
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}
