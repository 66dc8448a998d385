package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// providers are the identity providers with their keys, as gateways get them.
type providers struct {
	*provider.Keyring
	collection xds.Collection
}

// newProviders returns those whose keys are kept in dir.
func newProviders(dir string, cfg Config, log *slog.Logger) (*providers, error) {
	p := &providers{}
	changed := func(name string, m *chancerypb.Provider) {
		if m == nil {
			p.collection.Apply(nil, name)
			return
		}
		r, err := xds.New(name, m)
		if err != nil {
			log.Error("provider not encoded", "provider", name, "err", err)
			return
		}
		p.collection.Apply([]*xds.Resource{r})
	}
	var err error
	p.Keyring, err = provider.New(provider.Config{
		Dir: dir, Changed: changed, Client: cfg.HTTPClient, Logger: log, Registerer: cfg.Registerer,
	})
	return p, err
}

// refreshRequest asks for the keys of a provider, or of all.
type refreshRequest struct {
	Provider string `json:"provider,omitempty"`
}

// refreshTimeout is longer than a fetch that waits for another to end.
const refreshTimeout = 9 * time.Second

// refreshKeys fetches keys now. Who asks is in the log, as an event of trust.
func (s *Server) refreshKeys(ctx context.Context, q refreshRequest, by string) ([]provider.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	s.log.InfoContext(ctx, "keys of providers are fetched for an operator", "provider", q.Provider, "by", by)
	status, err := s.providers.Refresh(ctx, q.Provider)
	if errors.Is(err, provider.ErrUnknown) {
		return nil, notFoundf("there is no identity provider %q", q.Provider)
	}
	return status, err
}
