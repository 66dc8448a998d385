package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
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
	// attests says that it can vouch for an agent: it lets each register its own
	// service alone.
	attests() bool
	// announce puts an entry in that is not to get traffic yet.
	announce(ctx context.Context, e Entry) error
	// environment tells a program, of a service unless that is empty, where the
	// registry is.
	environment(service string) []string
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

func (f *fileRegistry) Flag() string                        { return "file:" + f.path }
func (*fileRegistry) selfRegister() bool                    { return false }
func (*fileRegistry) attests() bool                         { return false }
func (*fileRegistry) announce(context.Context, Entry) error { return nil }
func (*fileRegistry) environment(string) []string           { return nil }

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
