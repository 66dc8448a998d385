package sidecar

import (
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// newCredentials returns the credentials of the agent's workload, with nothing
// in them.
func (a *Agent) newCredentials() *credentials {
	cfg, secrets := a.config, a.downstream.secrets.secrets
	t := &trust{path: cfg.path(trustFile), secrets: secrets, log: a.log, changed: a.trustChanged}
	c := &credentials{
		dir: cfg.StateDir, id: cfg.Identity, secrets: secrets, trust: t,
		joiner:   &joiner{config: cfg.Join, target: cfg.ControlPlane, id: cfg.Identity, trust: t, log: a.log},
		problems: a.problems, metrics: a.metrics, log: a.log, touch: a.book.touch,
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if cfg.Identity.Role == identity.RoleGateway {
		c.passports = &passportKeys{path: cfg.path(passportKeyFile), log: a.log}
	}
	return c
}

// takeTrust judges the Trust of the control plane, and puts it to use.
func (a *Agent) takeTrust(resources []*xds.Resource) error {
	for _, r := range resources {
		m, err := decode(r)
		if err != nil {
			return err
		}
		t, ok := m.(*chancerypb.Trust)
		if !ok || r.Name != trustName {
			return fmt.Errorf("resource %q is not the mesh's trust", r.Name)
		}
		if err := a.credentials.trust.take(t); err != nil {
			return err
		}
	}
	return nil
}

// trustChanged tells all that verify by Trust of a new one.
func (a *Agent) trustChanged() {
	t := a.credentials.Trust()
	a.metrics.trust.Set(float64(t.Sequence()))
	if err := a.pdp.trusts(t); err != nil {
		a.log.Error("trust refused by the policy decision point", "err", err)
	}
	a.credentials.trustChanged()
}

// usedTrust returns the sequence of the oldest Trust that is in use here: the
// agent's, or that of its Envoy. It is 0 while that of the Envoy is not known.
func (a *Agent) usedTrust() uint64 {
	held := a.downstream.secrets.held(envoy.SecretBundle)
	if len(held) == 0 && a.found.Load() {
		return 0
	}
	return a.credentials.trust.served.oldest(held)
}

// foundPatience is how long an Envoy that was found may take to say what it
// holds: Envoy tries at least every 30 seconds. One that says nothing then has no
// use for it.
const foundPatience = 35 * time.Second

// envoyObtained notes whether the Envoy is that of an earlier agent. One that
// starts now has nothing yet.
func (a *Agent) envoyObtained(found bool) {
	if !found {
		a.found.Store(false)
		a.book.touch()
		return
	}
	time.AfterFunc(foundPatience, func() { a.found.Store(false); a.book.touch() })
}

// usedCertificate returns the oldest certificate that is in use here, nil for
// none.
func (a *Agent) usedCertificate() *certificate {
	return a.credentials.served.oldest(a.downstream.secrets.held(envoy.SecretSVID))
}
