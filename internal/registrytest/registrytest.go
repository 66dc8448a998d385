// Package registrytest is the contract of discovery.Registry as a test that
// every implementation runs.
package registrytest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chancery-mesh/chancery/discovery"
)

// patience is how long a change may take to be reported; quiet is how long a
// test listens for what must not be.
const (
	patience = 30 * time.Second
	quiet    = 200 * time.Millisecond
)

// Directory is how a test says what runs where.
type Directory interface {
	// Set makes these the instances of a service.
	Set(t testing.TB, service string, instances ...discovery.Instance)
}

// Open returns a registry that does not run yet, and what it reads.
type Open func(t *testing.T) (discovery.Registry, Directory)

// Test runs the contract. IDs of instances are the registry's own; the tests
// use services of different names, so a directory may be shared.
func Test(t *testing.T, open Open) {
	for name, test := range map[string]func(fixture){
		"reports a service without instances":     testEmpty,
		"reports instances as they are":           testInstances,
		"follows joins, changes and departures":   testChanges,
		"reports what is wanted, and that only":   testWant,
		"reports a service wanted again anew":     testWantAgain,
		"waits for all that is wanted":            testReady,
		"skips names that can name no service":    testNames,
		"notifies one call at a time, until done": testNotify,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, d := open(t)
			test(fixture{t, r, d})
		})
	}
}

// fixture is what a test of the contract starts with.
type fixture struct {
	*testing.T

	registry  discovery.Registry
	directory Directory
}

// Instance returns a passing instance for tests: number n, with or without a
// sidecar.
func Instance(n uint16, sidecar bool) discovery.Instance {
	i := discovery.Instance{
		ID:      fmt.Sprintf("instance-%d", n),
		Address: netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), 8000+n),
		Weight:  uint32(n) + 1,
		Health:  discovery.Passing,
	}
	if sidecar {
		i.Mesh = netip.AddrPortFrom(netip.MustParseAddr("fd00::1"), 21000+n)
	}
	return i
}

func testEmpty(f fixture) {
	f.registry.Want([]string{"empty"})
	Watch(f.T, f.registry).Await("empty")
}

func testInstances(f fixture) {
	all := []discovery.Instance{Instance(1, true), Instance(2, false), Instance(3, true)}
	f.directory.Set(f, "instances", all...)
	f.registry.Want([]string{"instances"})
	Watch(f.T, f.registry).Await("instances", all...)
}

func testChanges(f fixture) {
	f.registry.Want([]string{"changes"})
	w := Watch(f.T, f.registry)
	one, two, three := Instance(1, true), Instance(2, true), Instance(3, true)
	w.Await("changes")
	f.directory.Set(f, "changes", one, two)
	w.Await("changes", one, two)
	f.directory.Set(f, "changes", one, two, three)
	w.Await("changes", one, two, three)
	two.Weight, two.Mesh = 99, netip.AddrPort{}
	f.directory.Set(f, "changes", one, two, three)
	w.Await("changes", one, two, three)
	f.directory.Set(f, "changes", two, three)
	w.Await("changes", two, three)
}

func testWant(f fixture) {
	f.directory.Set(f, "want-a", Instance(1, true))
	f.directory.Set(f, "want-b", Instance(2, true))
	f.registry.Want([]string{"want-a"})
	w := Watch(f.T, f.registry)
	w.Await("want-a", Instance(1, true))
	f.registry.Want([]string{"want-b", "want-b"})
	w.Await("want-b", Instance(2, true))
	f.directory.Set(f, "want-a", Instance(1, true), Instance(3, true))
	w.None("want-a")
}

func testWantAgain(f fixture) {
	f.directory.Set(f, "again", Instance(1, true))
	f.registry.Want([]string{"again", "again-other"})
	w := Watch(f.T, f.registry)
	w.Await("again", Instance(1, true))
	w.Await("again-other")
	f.registry.Want(nil)
	w.None("again")
	f.registry.Want([]string{"again"})
	w.Await("again", Instance(1, true))
}

func testReady(f fixture) {
	if err := f.registry.Ready(); err != nil {
		f.Errorf("nothing is wanted, Ready = %v", err)
	}
	f.registry.Want([]string{"ready-a", "ready-b"})
	if err := f.registry.Ready(); err == nil || !strings.Contains(err.Error(), `"ready-a"`) {
		f.Errorf("nothing is reported, Ready = %v", err)
	}
	w := Watch(f.T, f.registry)
	w.Await("ready-a")
	w.Await("ready-b")
	for deadline := time.Now().Add(patience); f.registry.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("all is reported, Ready = %v", f.registry.Ready())
		}
	}
}

func testNames(f fixture) {
	f.directory.Set(f, "names", Instance(1, true))
	bad := []string{"", "*", "..", "a/b", "a b", "Ünï", "Names", "a.b", "names?dc=x", strings.Repeat("a", 255)}
	f.registry.Want(append(bad, "names"))
	w := Watch(f.T, f.registry)
	w.Await("names", Instance(1, true))
	for _, name := range bad {
		w.None(name)
	}
	if err := f.registry.Ready(); err != nil && !strings.Contains(err.Error(), `"names"`) {
		f.Errorf("Ready waits for a name that is skipped: %v", err)
	}
}

func testNotify(f fixture) {
	var services []string
	for n := range 20 {
		services = append(services, fmt.Sprintf("notify-%d", n))
	}
	f.registry.Want(services)
	var calls, reported atomic.Int32
	ctx, cancel := context.WithTimeout(f.Context(), patience)
	defer cancel()
	err := f.registry.Run(ctx, func(discovery.Update) {
		if calls.Add(1) > 1 {
			f.Error("two calls at a time")
		}
		f.registry.Want(services) // must not block
		time.Sleep(time.Millisecond)
		calls.Add(-1)
		if reported.Add(1) == int32(len(services)) {
			cancel()
		}
	})
	if err != nil {
		f.Errorf("Run = %v", err)
	}
	if n := int(reported.Load()); n != len(services) {
		f.Errorf("%d services reported, want %d", n, len(services))
	}
}

// Watcher gathers the updates of a running registry.
type Watcher struct {
	t       *testing.T
	updates chan discovery.Update
	last    map[string]discovery.Update
}

// Watch runs r until the test ends.
func Watch(t *testing.T, r discovery.Registry) *Watcher {
	t.Helper()
	w := &Watcher{t: t, updates: make(chan discovery.Update, 10_000), last: map[string]discovery.Update{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx, func(u discovery.Update) { w.updates <- u }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return w
}

// Await waits until the instances of a service are these, whatever their IDs,
// and returns the update.
func (w *Watcher) Await(service string, want ...discovery.Instance) discovery.Update {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		u, ok := w.last[service]
		if ok && diff(u.Instances, want) == "" {
			w.check(u)
			delete(w.last, service)
			return u
		}
		select {
		case u := <-w.updates:
			w.last[u.Service] = u
		case <-timeout:
			w.t.Fatalf("service %q, reported %v (-want +got):\n%s", service, ok, diff(u.Instances, want))
		}
	}
}

// None listens for a while, and fails on a report of the service.
func (w *Watcher) None(service string) {
	w.t.Helper()
	for timeout := time.After(quiet); ; {
		select {
		case u := <-w.updates:
			w.last[u.Service] = u
			continue
		case <-timeout:
		}
		break
	}
	if u, ok := w.last[service]; ok {
		w.t.Errorf("unexpected report: %+v", u)
	}
}

func (w *Watcher) check(u discovery.Update) {
	w.t.Helper()
	if u.Held || u.Reason != "" {
		w.t.Errorf("service %q is held: %q", u.Service, u.Reason)
	}
	if !slices.IsSortedFunc(u.Instances, discovery.ByID) {
		w.t.Errorf("instances are not sorted by ID: %v", u.Instances)
	}
	twin := func(a, b discovery.Instance) bool { return a.ID == b.ID }
	if len(slices.CompactFunc(slices.Clone(u.Instances), twin)) != len(u.Instances) {
		w.t.Errorf("IDs are not unique: %v", u.Instances)
	}
}

func diff(got, want []discovery.Instance) string {
	return cmp.Diff(want, got,
		cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(discovery.Instance{}, "ID"),
		cmpopts.SortSlices(func(a, b discovery.Instance) int { return a.Address.Compare(b.Address) }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	)
}
