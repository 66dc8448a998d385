package service

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/consul/api"
)

// checkTTL is how long Consul believes in an instance that it hears nothing of.
const checkTTL = 10 * time.Second

// Registration is how an instance stands in Consul.
type Registration struct {
	Service, Instance string
	// Address is where the application listens, Mesh where its sidecar does.
	Address, Mesh netip.AddrPort
}

// Register puts r into Consul, found by CONSUL_HTTP_ADDR and its like, keeps its
// check passing until ctx ends, and takes it out again.
func Register(ctx context.Context, r Registration, log *slog.Logger) error {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return fmt.Errorf("connect to Consul: %w", err)
	}
	agent := client.Agent()
	if err := agent.ServiceRegister(r.service()); err != nil {
		return fmt.Errorf("register %s in Consul: %w", r.Instance, err)
	}
	keepPassing(ctx, agent, r, log)
	if err := agent.ServiceDeregister(r.Instance); err != nil {
		return fmt.Errorf("deregister %s from Consul: %w", r.Instance, err)
	}
	return nil
}

// service is a plain registration; the tagged address "mesh" says where the
// sidecar is.
func (r Registration) service() *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: r.Instance, Name: r.Service,
		Address: r.Address.Addr().String(), Port: int(r.Address.Port()),
		TaggedAddresses: map[string]api.ServiceAddress{
			"mesh": {Address: r.Mesh.Addr().String(), Port: int(r.Mesh.Port())},
		},
		Check: &api.AgentServiceCheck{
			CheckID: r.checkID(), TTL: checkTTL.String(), Status: api.HealthPassing,
			DeregisterCriticalServiceAfter: "1m",
		},
	}
}

func (r Registration) checkID() string { return "alive:" + r.Instance }

func keepPassing(ctx context.Context, agent *api.Agent, r Registration, log *slog.Logger) {
	tick := time.NewTicker(checkTTL / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := agent.UpdateTTL(r.checkID(), "", api.HealthPassing); err != nil {
			log.WarnContext(ctx, "consul does not hear us", "err", err)
		}
	}
}
