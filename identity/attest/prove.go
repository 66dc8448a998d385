package attest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
)

// amendTimeout bounds one change at the local Consul agent.
const amendTimeout = 5 * time.Second

// Proof is what an agent shows by Consul: the nonce, in the registration of one
// instance of a service.
type Proof struct {
	Service, ServiceID string
	Nonce              string
}

// Prove writes the nonce into the agent's own registration, at the Consul agent
// that has it and with the token of client, which never leaves the host. All
// else of the registration stays. The caller calls cleanup, whatever comes of
// the proof, to take the nonce out again.
func Prove(ctx context.Context, client *api.Client, p Proof) (cleanup func(context.Context) error, err error) {
	if err := checkInstance(p.Service, p.ServiceID); err != nil {
		return nil, err
	}
	err = amend(ctx, client, p, func(meta map[string]string) { meta[MetaKey] = p.Nonce })
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return amend(ctx, client, p, func(meta map[string]string) { delete(meta, MetaKey) })
	}, nil
}

// amend changes the metadata of a registration.
func amend(ctx context.Context, client *api.Client, p Proof, change func(map[string]string)) error {
	ctx, cancel := context.WithTimeout(ctx, amendTimeout)
	defer cancel()
	service, _, err := client.Agent().Service(p.ServiceID, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return refusal(p, "read", err)
	}
	if service.Service != p.Service {
		return fmt.Errorf("instance %q in Consul is of service %q, not %q", p.ServiceID, service.Service, p.Service)
	}
	r := registration(service)
	r.Meta = maps.Clone(r.Meta)
	if r.Meta == nil {
		r.Meta = map[string]string{}
	}
	change(r.Meta)
	// Checks that are not named stay as they are.
	opts := api.ServiceRegisterOpts{}.WithContext(ctx)
	if err := client.Agent().ServiceRegisterOpts(r, opts); err != nil {
		return refusal(p, "write", err)
	}
	return nil
}

// registration returns what registers a service as it is.
func registration(s *api.AgentService) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		Kind:              s.Kind,
		ID:                s.ID,
		Name:              s.Service,
		Tags:              s.Tags,
		Port:              s.Port,
		Ports:             s.Ports,
		Address:           s.Address,
		SocketPath:        s.SocketPath,
		TaggedAddresses:   s.TaggedAddresses,
		EnableTagOverride: s.EnableTagOverride,
		Meta:              s.Meta,
		Weights:           &s.Weights,
		Proxy:             s.Proxy,
		Connect:           s.Connect,
		Namespace:         s.Namespace,
		Partition:         s.Partition,
		Locality:          s.Locality,
	}
}

func refusal(p Proof, what string, err error) error {
	status, ok := errors.AsType[api.StatusError](err)
	switch {
	case ok && status.Code == http.StatusNotFound:
		return fmt.Errorf("the local Consul agent has no instance %q: register service %q there first", p.ServiceID, p.Service)
	case ok && status.Code == http.StatusForbidden:
		return fmt.Errorf("consul does not let this agent %s service %q: its token needs service:write", what, p.Service)
	}
	return fmt.Errorf("%s instance %q in Consul: %w", what, p.ServiceID, plain(err))
}
