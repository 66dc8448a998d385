// Package standalone runs the policy decision point of a gateway from documents
// alone, for an Envoy that Chancery does not configure.
//
// It reads the same documents as the control plane, watches them, and fetches the
// keys of their identity providers for itself. What a document says of listeners,
// upstreams and limits is for whoever configures that Envoy.
package standalone

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// Config says what a [PDP] runs with.
type Config struct {
	// Documents is their directory; required.
	Documents string
	// Gateway names the document to decide by; the only one if empty.
	Gateway string
	// Server decides; required.
	Server *extauthz.Server
	// Mints says that Server has a key to mint Passports with. Without one,
	// requests go on with the credentials that they came with.
	Mints bool
	// Providers says how keys are fetched; Changed is not to be set.
	Providers provider.Config
	// Logger; required.
	Logger *slog.Logger
	// Registerer gets the metric chancery_documents_valid; nil for none.
	Registerer prometheus.Registerer
}

// PDP keeps a server on the newest documents and keys.
type PDP struct {
	cfg     Config
	keyring *provider.Keyring
	valid   prometheus.Gauge

	mu sync.Mutex
	// rules are nil until documents were valid once.
	rules     *extauthz.Rules
	domain    string
	gateway   *mesh.Gateway
	accounts  []*chancerypb.Accounts
	providers map[string]*chancerypb.Provider
	fault     error
}

// New returns a PDP that has read nothing yet.
func New(c Config) (*PDP, error) {
	if c.Documents == "" || c.Server == nil || c.Logger == nil {
		return nil, errors.New("standalone PDP needs documents, a server and a logger")
	}
	p := &PDP{
		cfg: c, providers: map[string]*chancerypb.Provider{},
		valid: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_documents_valid", Help: "Whether the documents of the directory are those that are decided by.",
		}),
	}
	c.Providers.Changed = p.providerChanged
	var err error
	if p.keyring, err = provider.New(c.Providers); err != nil {
		return nil, err
	}
	if c.Registerer != nil {
		err = c.Registerer.Register(p.valid)
	}
	return p, err
}

// Run follows the documents and fetches keys until ctx ends.
func (p *PDP) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.keyring.Run(ctx) })
	group.Go(func() error {
		watch := mesh.WatchConfig{Dir: p.cfg.Documents, Options: extauthz.DocumentOptions(), Logger: p.cfg.Logger}
		return mesh.Watch(ctx, watch, func(_ mesh.Documents, m *mesh.Mesh, err error) { p.documentsRead(m, err) })
	})
	return group.Wait()
}

// Ready reports whether there is something to decide by.
func (p *PDP) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rules != nil
}

// Fault returns what is wrong with the directory's present content, for which
// what was read before stays; nil if nothing is.
func (p *PDP) Fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// PassportKeys returns the public half of the key that signs Passports, for
// whoever verifies them until then; empty until documents were valid once.
func (p *PDP) PassportKeys(signer *passport.Signer, until time.Time) passport.KeySet {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gateway == nil {
		return passport.KeySet{}
	}
	owner := identity.ID{Role: identity.RoleGateway, Name: p.gateway.Name}.SPIFFE(p.domain)
	return passport.KeySet{signer.KeyID(): {
		Owner: owner, Public: signer.Public(), Until: until,
		Providers: translate.MayVouch(p.gateway), Tenants: p.gateway.Tenants,
	}}
}

// documentsRead takes valid documents. Those that are not change nothing.
func (p *PDP) documentsRead(m *mesh.Mesh, err error) {
	var g *mesh.Gateway
	if err == nil {
		g, err = m.ChooseGateway(p.cfg.Gateway)
	}
	if err == nil {
		err = p.decideBy(m, g)
	}
	p.mu.Lock()
	p.fault = err
	p.mu.Unlock()
	if err != nil {
		p.valid.Set(0)
		p.cfg.Logger.Error("documents not valid: the last good ones stay", "dir", p.cfg.Documents, "err", err)
		return
	}
	p.valid.Set(1)
	p.cfg.Logger.Info("documents decided by", "dir", p.cfg.Documents, "gateway", g.Name)
	// Outside of the lock: it tells of what is known of each.
	p.keyring.Use(providersOf(m, g))
}

func providersOf(m *mesh.Mesh, g *mesh.Gateway) []*mesh.IdentityProvider {
	named := translate.ProviderNames(translate.Gateway(m, g))
	return slices.DeleteFunc(slices.Clone(m.Providers), func(d *mesh.IdentityProvider) bool {
		return !slices.Contains(named, d.Name)
	})
}

func (p *PDP) decideBy(m *mesh.Mesh, g *mesh.Gateway) error {
	policy := translate.Gateway(m, g)
	policy.MatchRoutes = true
	if !p.cfg.Mints {
		policy.Minting.Lifetime = nil
	}
	rules, err := extauthz.Compile(policy)
	if err != nil {
		return err
	}
	var accounts []*chancerypb.Accounts
	for name, a := range translate.Accounts(m) {
		if slices.Contains(policy.GetAccounts(), name) {
			accounts = append(accounts, a)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.apply(rules, accounts); err != nil {
		return err
	}
	p.rules, p.accounts, p.domain, p.gateway = rules, accounts, m.TrustDomain, g
	return nil
}

// providerChanged takes what is known of an identity provider; nil if it is
// gone.
func (p *PDP) providerChanged(name string, known *chancerypb.Provider) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known == nil {
		delete(p.providers, name)
	} else {
		p.providers[name] = known
	}
	if p.rules == nil {
		return
	}
	if err := p.apply(p.rules, p.accounts); err != nil {
		p.cfg.Logger.Error("keys not taken: the last good ones stay", "provider", name, "err", err)
	}
}

// apply replaces the server's state. The caller holds the lock.
func (p *PDP) apply(rules *extauthz.Rules, accounts []*chancerypb.Accounts) error {
	keys := extauthz.Keys{Accounts: accounts, Revocations: &revocation.Index{}}
	for _, known := range p.providers {
		keys.Providers = append(keys.Providers, known)
	}
	state, err := rules.With(keys)
	if err != nil {
		return err
	}
	p.cfg.Server.SetState(state)
	return nil
}
