package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/examples/shop/demo"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/rig"
	"github.com/chancery-mesh/chancery/sidecar"
)

const (
	lifetime   = 20 * time.Second
	livesShort = "passport: {lifetime: 60s}\ncertificates: {lifetime: 20s}"
	// settled is how old the youngest certificate is before anything is killed:
	// agents keep keys and endpoints on disk within a second.
	settled = 2500 * time.Millisecond
)

// outage is a mesh of the real programs, whose control plane comes and goes.
type outage struct {
	*testing.T
	*bench
	ctx context.Context
	// gateway and orders are what a request meets.
	gateway, orders *rig.Agent
}

// TestControlPlaneAway restarts agents and Envoys while the control plane is
// away. Requests are answered until certificates end, and not afterwards. When
// the control plane comes back in time, agents renew by themselves; when it
// comes back too late, they join with fresh tokens.
func TestControlPlaneAway(t *testing.T) {
	envoytest.Path(t)
	o := startOutage(t)

	o.allServed(o.load.Start(o.ctx), settled)
	o.leave()
	o.restartEverything()
	o.allServed(o.load.Start(o.ctx), 2*time.Second)
	before := o.ends()
	o.check("start the control plane", o.ControlPlane.Start())
	traffic := o.load.Start(o.ctx)
	o.until("agents renew once the control plane is back", lifetime, func(context.Context) error {
		for n, end := range o.ends() {
			if !end.After(before[n]) {
				return fmt.Errorf("a certificate ends at %v as before", end)
			}
		}
		return nil
	})
	o.allServed(traffic, 0)

	o.leave()
	o.restartEverything()
	ends := o.ends()
	first, last := slices.MinFunc(ends, time.Time.Compare), slices.MaxFunc(ends, time.Time.Compare)
	left := time.Until(first) - time.Second
	t.Logf("certificates are good for %v after the restart", left)
	o.allServed(o.load.Start(o.ctx), left)
	time.Sleep(time.Until(last) + lifetime/4) // how long connections live
	o.noneServed()

	o.check("start the control plane", o.ControlPlane.Start())
	back := time.Now()
	for _, workload := range [][3]string{{"gateway", "public", "public"}, {"service", "orders", "orders-1"}, {"service", "inventory", "inventory-1"}} {
		o.giveToken(workload[0], workload[1], workload[2])
	}
	o.until("requests are served with fresh certificates", 10*time.Second, o.serves)
	t.Logf("served %v after the control plane's return", time.Since(back).Round(time.Millisecond))
	o.allServed(o.load.Start(o.ctx), time.Second)
}

func startOutage(t *testing.T) *outage {
	t.Helper()
	o := &outage{T: t, ctx: t.Context()}
	programs, cleanup, err := programs(o.ctx)
	o.check("find programs", err)
	t.Cleanup(func() { o.check("remove programs", cleanup()) })
	config := demo.Mesh(programs, "file")
	config.Gateways, config.Services = config.Gateways[:1], []string{"inventory", "orders"}
	config.Replace = []string{usualLives, livesShort}
	mesh, err := rig.Start(o.ctx, config)
	o.check("start the mesh", err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(mesh.Logs())
		}
		o.check("end the mesh", mesh.Close())
	})
	o.bench, err = newBench(o.ctx, mesh, 25)
	o.check("a first request", err)
	o.load.Fresh = 2
	o.gateway, o.orders = mesh.Gateway, mesh.Instances("orders")[0].Agent
	return o
}

func (o *outage) check(what string, err error) {
	o.Helper()
	if err != nil {
		o.Fatalf("%s: %v", what, err)
	}
}

func (o *outage) until(what string, within time.Duration, condition func(context.Context) error) {
	o.Helper()
	o.check(what, rig.Until(o.ctx, within, condition))
}

// ends returns when the certificates of all agents do.
func (o *outage) ends() (ends []time.Time) {
	o.Helper()
	for _, agent := range o.Agents() {
		id, err := sidecar.FetchIdentity(o.ctx, agent.State)
		o.check(agent.Name, err)
		ends = append(ends, id.Certificate.Expires)
	}
	return ends
}

// leave kills the control plane when half of each certificate's life is left, and
// everybody has had the time to learn, and to keep on disk, for how long the
// gateway's keys were endorsed with the last one.
func (o *outage) leave() {
	o.Helper()
	o.until("certificates with half of their life", lifetime, func(context.Context) error {
		ends := o.ends()
		if left := time.Until(slices.MinFunc(ends, time.Time.Compare)); left < lifetime/2 {
			return fmt.Errorf("%v is left", left)
		}
		if age := lifetime - time.Until(slices.MaxFunc(ends, time.Time.Compare)); age < settled {
			return fmt.Errorf("one is %v old", age)
		}
		return nil
	})
	o.check("kill the control plane", o.ControlPlane.Kill())
}

// restartEverything kills what a request meets: the gateway's agent and Envoy,
// and those of orders.
func (o *outage) restartEverything() {
	o.Helper()
	for _, agent := range []*rig.Agent{o.gateway, o.orders} {
		o.check("kill", errors.Join(agent.Kill(), agent.KillEnvoy()))
		o.check("start", agent.Start())
	}
	for _, agent := range []*rig.Agent{o.gateway, o.orders} {
		o.check("ready", agent.Ready(o.ctx, 5*time.Second))
	}
	o.until("a request after the restart", 2*time.Second, o.serves)
}

// allServed ends the traffic after a while; all of it must have been answered.
func (o *outage) allServed(traffic *rig.Traffic, after time.Duration) {
	o.Helper()
	time.Sleep(after)
	samples := traffic.Stop()
	if failed := samples.Failed(); len(samples) == 0 || len(failed) > 0 {
		o.Fatalf("%d of %d requests failed: %+v", len(failed), len(samples), failed[:min(len(failed), 3)])
	}
}

// noneServed sends requests of which none may reach orders.
func (o *outage) noneServed() {
	o.Helper()
	before, err := o.Received(o.ctx, "orders")
	o.check("ask orders", err)
	traffic := o.load.Start(o.ctx)
	time.Sleep(time.Second)
	samples := traffic.Stop()
	after, err := o.Received(o.ctx, "orders")
	o.check("ask orders", err)
	if len(samples) == 0 || len(samples.Failed()) != len(samples) || after.Total != before.Total {
		o.Fatalf("without certificates %d of %d requests failed, and %d reached orders",
			len(samples.Failed()), len(samples), after.Total-before.Total)
	}
}

// giveToken puts a fresh token where the agent of an instance looks for one.
func (o *outage) giveToken(role, name, instance string) {
	o.Helper()
	if err := os.Remove(filepath.Join(o.Dir(), "tokens", instance)); err != nil {
		o.Fatal(err)
	}
	o.until("a fresh token", 10*time.Second, func(ctx context.Context) error {
		_, err := o.Token(ctx, role, name, instance)
		return err
	})
}
