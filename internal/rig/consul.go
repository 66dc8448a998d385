package rig

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/consul/api"
)

// consulRegistry is a Consul agent of our own, in which each service's
// processes may register that service alone.
type consulRegistry struct {
	address string
	client  *api.Client
	// dir holds the tokens, one file each.
	dir string
}

func (r *Rig) startConsul(ctx context.Context) error {
	var addresses [4]netip.AddrPort
	for i := range addresses {
		var err error
		if addresses[i], err = r.ports.next(); err != nil {
			return err
		}
	}
	c := &consulRegistry{address: addresses[0].String(), dir: filepath.Join(r.dir, "registry")}
	management := uuid()
	if err := c.configure(management); err != nil {
		return err
	}
	port := func(i int) string { return fmt.Sprint(addresses[i].Port()) }
	_, err := r.run("consul", r.programs.Consul, "agent", "-dev", "-log-level", "warn", "-config-file", c.path("consul.json"),
		"-bind", "127.0.0.1", "-client", "127.0.0.1", "-http-port", port(0),
		"-serf-lan-port", port(1), "-serf-wan-port", port(2), "-server-port", port(3),
		"-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1")
	if err != nil {
		return err
	}
	if c.client, err = api.NewClient(&api.Config{Address: c.address, Token: management}); err != nil {
		return err
	}
	r.Registry = c
	return Until(ctx, 20*time.Second, func(ctx context.Context) error {
		// What the control plane may: read.
		return c.allow(ctx, "", `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }`)
	})
}

// configure has Consul deny what no token allows.
func (c *consulRegistry) configure(management string) error {
	config, err := json.Marshal(map[string]any{"acl": map[string]any{
		"enabled": true, "default_policy": "deny",
		"tokens": map[string]string{"initial_management": management, "agent": management},
	}})
	if err != nil {
		return err
	}
	return replaceFile(c.path("consul.json"), string(config))
}

// allow makes a token with these rules, in the file of a service.
func (c *consulRegistry) allow(ctx context.Context, service, rules string) error {
	options := new(api.WriteOptions).WithContext(ctx)
	policy, _, err := c.client.ACL().PolicyCreate(&api.ACLPolicy{Name: "shop-" + uuid(), Rules: rules}, options)
	if err != nil {
		return err
	}
	token, _, err := c.client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, options)
	if err != nil {
		return err
	}
	return replaceFile(c.token(service), token.SecretID)
}

func (c *consulRegistry) path(name string) string { return filepath.Join(c.dir, name) }

func (c *consulRegistry) token(service string) string { return c.path("token-" + service) }

func (*consulRegistry) Flag() string       { return "consul" }
func (*consulRegistry) selfRegister() bool { return true }
func (*consulRegistry) attests() bool      { return true }

func (c *consulRegistry) environment(service string) []string {
	return []string{"CONSUL_HTTP_ADDR=" + c.address, "CONSUL_HTTP_TOKEN_FILE=" + c.token(service)}
}

// announce registers as a scheduler would that is about to start the instance,
// and makes the token for that service.
func (c *consulRegistry) announce(ctx context.Context, e Entry) error {
	if _, err := os.Stat(c.token(e.Service)); err != nil {
		rules := fmt.Sprintf(`service %q { policy = "write" } node_prefix "" { policy = "read" }`, e.Service)
		if err := c.allow(ctx, e.Service, rules); err != nil {
			return err
		}
	}
	registration := e.registration()
	registration.Check = &api.AgentServiceCheck{CheckID: "alive:" + e.ID, TTL: "10s", Status: api.HealthCritical}
	return c.register(ctx, registration)
}

func (c *consulRegistry) Put(ctx context.Context, e Entry) error {
	return c.register(ctx, e.registration())
}

func (c *consulRegistry) register(ctx context.Context, r *api.AgentServiceRegistration) error {
	return c.client.Agent().ServiceRegisterOpts(r, api.ServiceRegisterOpts{}.WithContext(ctx))
}

func (e Entry) registration() *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: e.ID, Name: e.Service,
		Address: e.Address.Addr().String(), Port: int(e.Address.Port()),
		TaggedAddresses: map[string]api.ServiceAddress{
			"mesh": {Address: e.Mesh.Addr().String(), Port: int(e.Mesh.Port())},
		},
	}
}

func (c *consulRegistry) Remove(ctx context.Context, e Entry) error {
	return c.client.Agent().ServiceDeregisterOpts(e.ID, new(api.QueryOptions).WithContext(ctx))
}

// uuid is what Consul wants tokens to look like.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
