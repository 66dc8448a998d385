package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/examples/shop/service"
)

// Instance is one instance of a service: the application and its sidecar.
type Instance struct {
	Service, ID string
	App         *Process
	Agent       *Agent
	// Application is where the application listens, Outbound where its sidecar
	// takes its calls to others.
	Application, Outbound netip.AddrPort
}

// StartInstance starts an instance, waits until it can take traffic, and puts
// it into the registry.
func (r *Rig) StartInstance(ctx context.Context, serviceName, id string) (*Instance, error) {
	i, err := r.startInstance(ctx, serviceName, id, r.Registry.selfRegister())
	if err != nil || r.Registry.selfRegister() {
		return i, err
	}
	return i, r.Registry.Put(ctx, i.Entry())
}

// StartUnregistered does the same, but for the registry.
func (r *Rig) StartUnregistered(ctx context.Context, serviceName, id string) (*Instance, error) {
	return r.startInstance(ctx, serviceName, id, false)
}

func (r *Rig) startInstance(ctx context.Context, serviceName, id string, register bool) (*Instance, error) {
	var addresses [3]netip.AddrPort
	for n := range addresses {
		var err error
		if addresses[n], err = r.ports.next(); err != nil {
			return nil, err
		}
	}
	inbound, application, outbound := addresses[0], addresses[1], addresses[2]
	joins, err := r.joins(ctx, Entry{Service: serviceName, ID: id, Address: application, Mesh: inbound}, register)
	if err != nil {
		return nil, err
	}
	agent, err := r.runAgent(serviceName, id, inbound, append([]string{
		"sidecar", "--service", serviceName,
		"--inbound", inbound.String(), "--application", application.String(), "--outbound", outbound.String(),
	}, joins...)...)
	if err != nil {
		return nil, err
	}
	i := &Instance{Service: serviceName, ID: id, Agent: agent, Application: application, Outbound: outbound}
	r.instances = append(r.instances, i)
	if err := agent.Ready(ctx, 15*time.Second); err != nil {
		return nil, err
	}
	args := []string{
		"service", "-name", serviceName, "-instance", id, "-listen", application.String(),
		"-upstream", "http://" + outbound.String(),
		"-passport-keys", filepath.Join(agent.State, "passport-keys.json"),
	}
	if register {
		args = append(args, "-register", "consul", "-advertise", "127.0.0.1", "-mesh", inbound.String())
	}
	if i.App, err = r.runFor(serviceName, id, r.programs.Shop, args...); err != nil {
		return nil, err
	}
	return i, Until(ctx, 5*time.Second, func(ctx context.Context) error {
		_, err := i.Received(ctx)
		return err
	})
}

// Entry is how the instance stands in the registry.
func (i *Instance) Entry() Entry {
	return Entry{Service: i.Service, ID: i.ID, Address: i.Application, Mesh: i.Agent.Listen}
}

// StopInstance takes an instance out of the registry and then ends it, both in
// the order of a deployment: the application serves on for a while, the sidecar
// drains.
func (r *Rig) StopInstance(ctx context.Context, i *Instance) error {
	if !r.Registry.selfRegister() {
		if err := r.Registry.Remove(ctx, i.Entry()); err != nil {
			return err
		}
	}
	if err := i.App.Terminate(10 * time.Second); err != nil {
		return err
	}
	r.instances = slices.DeleteFunc(r.instances, func(o *Instance) bool { return o == i })
	return i.Agent.Terminate(20 * time.Second)
}

// Received asks the application what reached it.
func (i *Instance) Received(ctx context.Context) (service.Received, error) {
	var received service.Received
	data, err := call(ctx, http.DefaultClient, http.MethodGet, fmt.Sprintf("http://%s/-/received", i.Application), nil)
	if err == nil {
		err = json.Unmarshal(data, &received)
	}
	return received, err
}

// Received adds up what reached all instances of a service.
func (r *Rig) Received(ctx context.Context, serviceName string) (service.Received, error) {
	sum := service.Received{Requests: map[string]int{}}
	for _, i := range r.Instances(serviceName) {
		received, err := i.Received(ctx)
		if err != nil {
			return sum, err
		}
		sum.Add(received)
	}
	return sum, nil
}

// Instances returns the running instances of a service.
func (r *Rig) Instances(serviceName string) []*Instance {
	return slices.DeleteFunc(slices.Clone(r.instances), func(i *Instance) bool { return i.Service != serviceName })
}
