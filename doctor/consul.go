package doctor

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/identity/attest"
)

const (
	consulTimeout = 5 * time.Second
	// maxClockDifference is half of what certificates' first minute forgives.
	maxClockDifference = 30 * time.Second
)

// Consul looks whether the Consul that the environment names can be reached,
// has a leader and our time, and lets nobody register as a service without a
// token.
func Consul(ctx context.Context, services []string) []Finding {
	ctx, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	config := api.DefaultConfig()
	where := "consul at " + config.Address
	leader, now, err := askConsul(ctx, config)
	switch {
	case err != nil:
		return []Finding{problem(where, "start it, or set CONSUL_HTTP_ADDR and its like as for the control plane", "cannot be asked: %v", err)}
	case leader == "":
		return []Finding{problem(where, "bring back a majority of its servers", "has no leader: changes do not reach the mesh")}
	}
	var found []Finding
	if ahead := time.Until(now).Round(time.Second); !now.IsZero() && ahead.Abs() > maxClockDifference {
		found = append(found, problem(where, "let NTP keep the clocks of both hosts",
			"has a clock that is %v away from this host's: one of them takes good certificates for expired or not yet valid", ahead.Abs()))
	}
	return append(found, registrations(ctx, where, services)...)
}

// askConsul returns who leads, and what time Consul says it is.
func askConsul(ctx context.Context, config *api.Config) (leader string, now time.Time, err error) {
	httpClient, err := api.NewHttpClient(config.Transport, config.TLSConfig)
	if err != nil {
		return "", now, err
	}
	httpClient.Transport = dated{httpClient.Transport, &now}
	config.HttpClient = httpClient
	client, err := api.NewClient(config)
	if err != nil {
		return "", now, err
	}
	leader, err = client.Status().LeaderWithQueryOptions(new(api.QueryOptions).WithContext(ctx))
	return leader, now, err
}

// dated notes what time the other side says it is.
type dated struct {
	http.RoundTripper
	now *time.Time
}

// RoundTrip implements http.RoundTripper.
func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if err == nil {
		if now, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			*d.now = now
		}
	}
	return resp, err
}

// registrations finds services whose traffic anybody could draw away.
func registrations(ctx context.Context, where string, services []string) []Finding {
	consul, err := attest.NewConsul(attest.ConsulConfig{})
	if err != nil {
		return []Finding{problem(where, "set CONSUL_HTTP_ADDR and its like as for the control plane", "cannot be asked: %v", err)}
	}
	var found []Finding
	for _, service := range slices.Compact(slices.Sorted(slices.Values(services))) {
		if err := consul.CheckACLs(ctx, service); err != nil {
			found = append(found, problem(where+", service "+service, "set default_policy = \"deny\", and give service write to the tokens of the service's application and agent alone", "%v", err))
		}
	}
	return found
}
