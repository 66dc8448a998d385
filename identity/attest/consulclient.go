package attest

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/breaker"
)

// maxAnswer is room for one registration many times over.
const maxAnswer = 1 << 20

// NewConsulClient returns a client that reads bounded answers only.
func NewConsulClient(config *api.Config) (*api.Client, error) {
	bounded, err := boundedConfig(config)
	if err != nil {
		return nil, err
	}
	return api.NewClient(bounded)
}

func boundedConfig(config *api.Config) (*api.Config, error) {
	c := *config
	transport := cmp.Or(c.Transport, api.DefaultConfig().Transport).Clone()
	// api.NewClient would replace the bounded HTTP client for such an address.
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		c.Address = "localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	unbounded, err := api.NewHttpClient(transport, c.TLSConfig)
	if err != nil {
		return nil, err
	}
	c.HttpClient = breaker.Restrict(unbounded, maxAnswer)
	return &c, nil
}

// consulClient asks Consul on behalf of the control plane.
type consulClient struct {
	config  *api.Config // as the catalog's client completed it
	catalog *api.Catalog
	guard   *breaker.Guard
	// again is again, but for tests.
	again []time.Duration
	// waiting has an element for each proof that is waited for.
	waiting chan struct{}
}

func newConsulClient(config *api.Config, guard *breaker.Guard) (*consulClient, error) {
	bounded, err := boundedConfig(config)
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(bounded)
	if err != nil {
		return nil, err
	}
	return &consulClient{
		config: bounded, catalog: client.Catalog(), guard: guard, again: again, waiting: make(chan struct{}, maxWaiting),
	}, nil
}

// maxWaiting bounds the proofs that are waited for at once.
const maxWaiting = 32

// again is when a registration is read that did not have the nonce at once: for
// everybody after the first pause, and for a few after the others.
var again = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 5 * time.Second}

// await returns nil once the registration has the nonce. An agent's write is in
// the catalog within milliseconds, unless Consul is busy. Anybody can have a
// nonce waited for, so it is not looked for often.
func (c *consulClient) await(ctx context.Context, p Proof) error {
	err := c.look(ctx, p)
	for n, pause := range c.again {
		if err == nil {
			return nil
		}
		if n == 1 {
			select {
			case c.waiting <- struct{}{}:
				defer func() { <-c.waiting }()
			default:
				return fmt.Errorf("%w; and %d others are waited for already", err, maxWaiting)
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		err = c.look(ctx, p)
	}
	return err
}

// look reads the registration from Consul's leader.
func (c *consulClient) look(ctx context.Context, p Proof) error {
	instances, err := breaker.Do(ctx, c.guard, func(ctx context.Context) ([]*api.CatalogService, error) {
		q := &api.QueryOptions{RequireConsistent: true, Filter: fmt.Sprintf("ServiceID == %q", p.ServiceID)}
		list, _, err := c.catalog.Service(p.Service, "", q.WithContext(ctx))
		return list, err
	})
	if err != nil {
		return fmt.Errorf("read its registration: %w", plain(err))
	}
	found := false
	for _, i := range instances {
		// Consul's own look-up does not tell upper case from lower; its ACLs do.
		if i.ServiceName != p.Service || i.ServiceID != p.ServiceID {
			continue
		}
		found = true
		if subtle.ConstantTimeCompare([]byte(i.ServiceMeta[MetaKey]), []byte(p.Nonce)) == 1 {
			return nil
		}
	}
	if !found {
		return fmt.Errorf("it has no instance with ID %q, or the control plane's token may not read it (service:read)", p.ServiceID)
	}
	return fmt.Errorf("instance %q does not have the nonce in its metadata", p.ServiceID)
}

// plain keeps what a server wrote into an error page out of logs and answers.
func plain(err error) error {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		return fmt.Errorf("consul answered %d", status.Code)
	}
	return err
}
