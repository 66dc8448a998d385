package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// Entry is one instance as a registry tells of it.
type Entry struct {
	Service, ID string
	// Address is where the application listens, Mesh where its sidecar does.
	Address, Mesh netip.AddrPort
}

// Registry says where services run.
type Registry interface {
	// Flag is what `chancery serve --registry` takes.
	Flag() string
	// Put adds an entry, or replaces the one of the same service and ID.
	Put(ctx context.Context, e Entry) error
	Remove(ctx context.Context, e Entry) error

	// selfRegister says that applications put themselves in.
	selfRegister() bool
	// environment tells every program where the registry is.
	environment() []string
}

func (r *Rig) startRegistry(ctx context.Context, kind string) error {
	switch kind {
	case "file":
		registry := &fileRegistry{path: filepath.Join(r.dir, "registry", "services.yaml")}
		r.Registry = registry
		return registry.write()
	case "consul":
		return r.startConsul(ctx)
	default:
		return fmt.Errorf("registry %q: choose file or consul", kind)
	}
}

// fileRegistry is the embedded registry's file.
type fileRegistry struct {
	path    string
	entries []Entry
}

func (f *fileRegistry) Flag() string        { return "file:" + f.path }
func (*fileRegistry) selfRegister() bool    { return false }
func (*fileRegistry) environment() []string { return nil }

func (f *fileRegistry) Put(_ context.Context, e Entry) error {
	f.drop(e)
	f.entries = append(f.entries, e)
	return f.write()
}

func (f *fileRegistry) Remove(_ context.Context, e Entry) error {
	f.drop(e)
	return f.write()
}

func (f *fileRegistry) drop(e Entry) {
	f.entries = slices.DeleteFunc(f.entries, func(o Entry) bool { return o.Service == e.Service && o.ID == e.ID })
}

func (f *fileRegistry) write() error {
	type instance struct {
		ID      string         `json:"id"`
		Address netip.AddrPort `json:"address"`
		Mesh    netip.AddrPort `json:"mesh"`
	}
	services := map[string][]instance{}
	for _, e := range f.entries {
		services[e.Service] = append(services[e.Service], instance{ID: e.ID, Address: e.Address, Mesh: e.Mesh})
	}
	data, err := json.Marshal(map[string]any{"services": services}) // JSON is YAML
	if err != nil {
		return err
	}
	return replaceFile(f.path, string(data))
}

// consulRegistry is a Consul agent of our own.
type consulRegistry struct {
	address string
	agent   *api.Agent
}

func (r *Rig) startConsul(ctx context.Context) error {
	var addresses [4]netip.AddrPort
	for i := range addresses {
		var err error
		if addresses[i], err = r.ports.next(); err != nil {
			return err
		}
	}
	port := func(i int) string { return fmt.Sprint(addresses[i].Port()) }
	_, err := r.run("consul", r.programs.Consul, "agent", "-dev", "-log-level", "warn",
		"-bind", "127.0.0.1", "-client", "127.0.0.1", "-http-port", port(0),
		"-serf-lan-port", port(1), "-serf-wan-port", port(2), "-server-port", port(3),
		"-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1")
	if err != nil {
		return err
	}
	client, err := api.NewClient(&api.Config{Address: addresses[0].String()})
	if err != nil {
		return err
	}
	r.Registry = &consulRegistry{address: addresses[0].String(), agent: client.Agent()}
	return Until(ctx, 20*time.Second, func(context.Context) error {
		leader, err := client.Status().Leader()
		if err == nil && leader == "" {
			err = fmt.Errorf("consul has no leader")
		}
		return err
	})
}

func (*consulRegistry) Flag() string            { return "consul" }
func (*consulRegistry) selfRegister() bool      { return true }
func (c *consulRegistry) environment() []string { return []string{"CONSUL_HTTP_ADDR=" + c.address} }

func (c *consulRegistry) Put(ctx context.Context, e Entry) error {
	return c.agent.ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: e.ID, Name: e.Service,
		Address: e.Address.Addr().String(), Port: int(e.Address.Port()),
		TaggedAddresses: map[string]api.ServiceAddress{
			"mesh": {Address: e.Mesh.Addr().String(), Port: int(e.Mesh.Port())},
		},
	}, api.ServiceRegisterOpts{}.WithContext(ctx))
}

func (c *consulRegistry) Remove(ctx context.Context, e Entry) error {
	return c.agent.ServiceDeregisterOpts(e.ID, new(api.QueryOptions).WithContext(ctx))
}
