package sidecar

import (
	"context"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/envoy"
)

// sameAgain stands for the revision that is rolled out already, to be made
// local once more.
var sameAgain = &revision{}

// regenerate has Envoy make new connections to the services whose generation
// is another now; see [envoy.Local].
func (o *rollout) regenerate(generations map[string]string) {
	o.mu.Lock()
	o.local.Generations = generations
	o.mu.Unlock()
	select {
	case o.again <- struct{}{}:
	default: // it is going to be
	}
}

// place returns where this instance differs from others, as of now.
func (o *rollout) place() envoy.Local {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.local
}

// rollAgain rolls out the target as it is here by now. Like roll, it returns the
// revision that overtook it, if any.
func (o *rollout) rollAgain(ctx context.Context) *revision {
	if o.target == nil {
		return nil
	}
	clusters, err := o.relocalize()
	if err != nil {
		o.log.ErrorContext(ctx, "connections not renewed", "err", err)
		return o.settle(ctx, o.target)
	}
	o.putClusters(clusters)
	if target := o.target; !target.withdrawn {
		return o.proceed(ctx, target)
	}
	return o.settle(ctx, o.target)
}

// relocalize makes the revisions that Envoy has, or could go back to, local once
// more. It returns what became of the clusters that Envoy was given, which are of
// more than one revision when it rejected some.
func (o *rollout) relocalize() (clusters set, err error) {
	place := o.place()
	clusters = o.downstream.resources[resource.ClusterType].Resources()
	fresh := map[*localRevision]*localRevision{}
	for _, old := range []*localRevision{o.proven, o.settled, o.target} {
		if old == nil || fresh[old] != nil {
			continue
		}
		now := *old
		if now.local, err = localize(old.revision, place); err != nil {
			return nil, err
		}
		if !old.servesSame(&now) {
			now.held = time.Time{}
		}
		fresh[old] = &now
		for name, r := range old.local[resource.ClusterType] {
			if given := clusters[name]; given != nil && given.Version == r.Version {
				clusters[name] = now.local[resource.ClusterType][name]
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.proven, o.settled, o.target = fresh[o.proven], fresh[o.settled], fresh[o.target]
	return clusters, nil
}
