package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/breaker"
)

const (
	// maxBody is room for some thousand instances of one service.
	maxBody = 8 << 20
	// slack is what an answer may take beside its wait.
	slack = 5 * time.Second
)

// client asks Consul, with bounds on everything.
type client struct {
	guard  *breaker.Guard
	health *api.Health
	http   *http.Client
}

func newClient(config *api.Config, connections int, guard *breaker.Guard) (*client, error) {
	c := *config
	transport := cmp.Or(c.Transport, api.DefaultConfig().Transport).Clone()
	// A transport dials in advance of a connection that may come free: without
	// a maximum there are more than workers. And by default most of them would
	// be closed whenever they pause.
	transport.MaxConnsPerHost = connections
	transport.MaxIdleConnsPerHost = connections
	transport.MaxIdleConns = connections
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
	c.HttpClient = breaker.Restrict(unbounded, maxBody)
	consul, err := api.NewClient(&c)
	if err != nil {
		return nil, err
	}
	return &client{guard: guard, health: consul.Health(), http: c.HttpClient}, nil
}

type answer struct {
	entries []*api.ServiceEntry
	meta    *api.QueryMeta
}

// ask returns the instances of a service, healthy or not, as soon as its index
// is another than the given one, or after about wait. Index 0 does not wait.
func (c *client) ask(ctx context.Context, service string, index uint64, wait time.Duration) (answer, error) {
	// Consul adds up to a sixteenth to the wait.
	guard := c.guard.Within(wait + wait/16 + slack)
	return breaker.Do(ctx, guard, func(ctx context.Context) (answer, error) {
		// Near keeps Consul from answering out of its streaming backend, which
		// knows neither the leader nor what ACLs hide.
		q := &api.QueryOptions{WaitIndex: index, WaitTime: wait, Near: "_agent"}
		entries, meta, err := c.health.Service(service, "", false, q.WithContext(ctx))
		if err != nil {
			return answer{}, plain(err)
		}
		if entries == nil {
			return answer{}, errors.New("consul answered no list")
		}
		return answer{entries, meta}, nil
	})
}

// plain keeps what a server wrote into an error page out of logs: a proxy may
// well repeat the request's token.
func plain(err error) error {
	status, ok := errors.AsType[api.StatusError](err)
	switch {
	case !ok:
		return err
	case status.Code == http.StatusForbidden:
		return errors.New("consul answered 403: its ACLs do not know or not permit the token")
	}
	return fmt.Errorf("consul answered %d", status.Code)
}
