package sidecar

import (
	"context"
	"os"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/workload"
)

// newWorkloadAPI returns the Workload API for the application beside a service's
// sidecar.
func newWorkloadAPI(c Config) *workload.Server {
	uid := uint32(os.Geteuid())
	if c.ApplicationUID != nil {
		uid = *c.ApplicationUID
	}
	return workload.New(workload.Config{UID: uid, Logger: c.Logger})
}

// serveWorkloadAPI serves the application until ctx ends.
func (a *Agent) serveWorkloadAPI(ctx context.Context) error {
	if a.workload == nil {
		return nil
	}
	l, err := a.workload.Listen(a.config.WorkloadSocket)
	if err != nil {
		return err
	}
	return a.workload.Run(ctx, l)
}

// followIdentity passes each certificate and Trust on, until ctx ends: to the
// application, and to Envoy, which must not use connections to peers that were
// revoked.
func (a *Agent) followIdentity(ctx context.Context) error {
	var p peers
	for {
		changed := a.credentials.watch()
		if a.workload != nil {
			if err := a.workload.Set(workloadState(a.credentials)); err != nil {
				a.log.ErrorContext(ctx, "certificate not given to the application", "err", err)
			}
		}
		if t := a.credentials.Trust(); t != nil {
			if generations, renewed := p.take(t, a.credentials.SVID()); renewed {
				a.log.InfoContext(ctx, "connections of revoked certificates end", "trust_sequence", t.Sequence())
				a.rollout.regenerate(generations)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// workloadState returns what the application may know: its own certificate with
// the key, and whom to trust.
func workloadState(source identity.Source) workload.State {
	var state workload.State
	svid, trust := source.SVID(), source.Trust()
	if trust != nil {
		state.TrustDomain, state.Roots = trust.TrustDomain(), trust.Roots()
		for _, a := range trust.Message().GetAuthorities() {
			state.CRLs = append(state.CRLs, a.GetCrl())
		}
	}
	if svid != nil {
		state.SVID = &workload.SVID{SPIFFEID: svid.SPIFFEID(), Chain: svid.Chain, Key: svid.Key}
		state.Revoked = trust != nil && (trust.IsRevoked(svid.Fingerprint()) || !trust.HasAuthority(svid.Authority()))
	}
	return state
}
