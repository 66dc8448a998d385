package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

// bystanders are instances in the registry that get no traffic. Among fewer,
// one that leaves and comes back several times in ten seconds would look like
// half of the mesh leaving, which is not believed.
const bystanders = 100

func (b *bench) fill(ctx context.Context) error {
	for n := range bystanders {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), uint16(10000+n))
		e := rig.Entry{Service: "payments", ID: fmt.Sprintf("bystander-%d", n), Address: address, Mesh: address}
		if err := b.Registry.Put(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// registry times writes to the registry until the gateway's Envoy routes by
// them: a second instance of orders comes, moves to another address, and goes,
// again and again. Real sidecars stand at both addresses.
func (b *bench) registry(ctx context.Context, f *figures, changes int) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	here, err := b.StartUnregistered(ctx, "orders", "orders-2")
	if err != nil {
		return err
	}
	there, err := b.StartUnregistered(ctx, "orders", "orders-3")
	if err != nil {
		return err
	}
	at := here.Entry()
	moved := at
	moved.Address, moved.Mesh = there.Application, there.Agent.Listen
	steps := []struct {
		what              string
		write             func(context.Context, rig.Entry) error
		entry             rig.Entry
		appears, vanishes rig.Entry
		took              times
	}{
		{what: "an instance is registered", write: b.Registry.Put, entry: at, appears: at},
		{what: "it moves to another address", write: b.Registry.Put, entry: moved, appears: moved, vanishes: at},
		{what: "it is deregistered", write: b.Registry.Remove, entry: moved, vanishes: moved},
	}
	var all times
	for n := range changes {
		step := &steps[n%len(steps)]
		took, err := b.timed(ctx, func() error { return step.write(ctx, step.entry) }, func(clusters string) bool {
			return (step.appears == rig.Entry{} || has(clusters, step.appears)) &&
				(step.vanishes == rig.Entry{} || !has(clusters, step.vanishes))
		})
		if err != nil {
			return fmt.Errorf("change %d, %s: %w", n, step.what, err)
		}
		step.took, all = append(step.took, took), append(all, took)
		pause(20 * time.Millisecond)
	}
	for _, step := range steps {
		step.took.print(step.what)
	}
	all.print("all of these")
	f.Changes = len(all)
	f.P50, f.P90, f.P99, f.Max = all.quantile(0.5), all.quantile(0.9), all.quantile(0.99), all.quantile(1)
	return nil
}

// pause lets the mesh come to rest, and keeps out of step with its timers.
func pause(least time.Duration) { time.Sleep(least + rand.N(60*time.Millisecond)) }

func has(clusters string, e rig.Entry) bool {
	return strings.Contains(clusters, "::"+e.Mesh.String()+"::")
}

// documents times changes of documents until traffic follows them.
func (b *bench) documents(ctx context.Context, f *figures, repeats int) error {
	added, err := b.edited(ctx, repeats, "orders.yaml", routeOfItsOwn, func(clusters string, n int) bool {
		return usedBy(clusters, fmt.Sprintf("orders~read-%d", n))
	})
	if err != nil {
		return fmt.Errorf("add a cluster: %w", err)
	}
	added.print("a document adds a cluster, traffic uses it")
	changed, err := b.edited(ctx, repeats, "inventory.yaml", threshold, func(clusters string, n int) bool {
		return strings.Contains(clusters, fmt.Sprintf("inventory~take-stock::default_priority::max_requests::%d\n", 2+n))
	})
	if err != nil {
		return fmt.Errorf("change a threshold: %w", err)
	}
	changed.print("a document changes a threshold")
	f.ClusterAdded, f.ClusterAddedMax = added.quantile(0.9), added.quantile(1)
	f.ThresholdChanged, f.ThresholdChangedMax = changed.quantile(0.9), changed.quantile(1)
	return nil
}

// routeOfItsOwn renames the route that all traffic takes and gives it a breaker,
// and with it a cluster that was never there.
func routeOfItsOwn(n int) string {
	if n == 0 {
		return "- name: read-order"
	}
	return fmt.Sprintf("- name: read-%d\n    circuitBreaker: {maxRequests: 500}", n)
}

func threshold(n int) string { return fmt.Sprintf("maxRequests: %d", 2+n) }

// edited times a chain of edits: each replaces the text before by the next.
func (b *bench) edited(ctx context.Context, repeats int, file string, text func(n int) string, effect func(clusters string, n int) bool) (times, error) {
	var all times
	for n := 1; n <= repeats; n++ {
		write := func() error {
			_, err := b.Documents.Edit(file, text(n-1), text(n))
			return err
		}
		took, err := b.timed(ctx, write, func(clusters string) bool { return effect(clusters, n) })
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		pause(200 * time.Millisecond)
	}
	return all, nil
}

// usedBy reports whether a cluster has sent a request anywhere.
func usedBy(clusters, cluster string) bool {
	for line := range strings.Lines(clusters) {
		if strings.HasPrefix(line, cluster+"::") && strings.Contains(line, "::rq_total::") && !strings.HasSuffix(line, "::0\n") {
			return true
		}
	}
	return false
}

// timed returns the time from before write until the gateway's Envoy shows the
// effect.
func (b *bench) timed(ctx context.Context, write func() error, effect func(clusters string) bool) (time.Duration, error) {
	start := time.Now()
	if err := write(); err != nil {
		return 0, err
	}
	err := rig.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		clusters, err := b.Gateway.Admin(ctx, "/clusters")
		if err == nil && !effect(clusters) {
			err = fmt.Errorf("no effect in Envoy:\n%s", clusters)
		}
		return err
	})
	return time.Since(start), err
}
