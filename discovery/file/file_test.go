package file_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/file"
	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write replaces a file in one step, as an operator's tool should.
func write(t testing.TB, path, text string) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// watch runs a registry until the test ends and returns its updates.
func watch(t *testing.T, c file.Config, services ...string) (*file.Registry, <-chan discovery.Update) {
	t.Helper()
	r, err := file.New(c)
	if err != nil {
		t.Fatal(err)
	}
	updates := make(chan discovery.Update, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx, func(u discovery.Update) { updates <- u }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.Want(services)
	return r, updates
}

func next(t *testing.T, updates <-chan discovery.Update) discovery.Update {
	t.Helper()
	select {
	case u := <-updates:
		return u
	case <-time.After(10 * time.Second):
		t.Fatal("no update")
		return discovery.Update{}
	}
}

func instance(id, address, mesh string, weight uint32) discovery.Instance {
	i := discovery.Instance{
		ID: id, Address: netip.MustParseAddrPort(address), Weight: weight, Health: discovery.Passing,
	}
	if mesh != "" {
		i.Mesh = netip.MustParseAddrPort(mesh)
	}
	return i
}

func diff(t *testing.T, got, want discovery.Update) {
	t.Helper()
	opts := cmp.Options{
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmpopts.EquateEmpty(),
	}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("update (-want +got):\n%s", d)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, `
services:
  orders:
    - {id: b, address: "[::1]:8080", mesh: 10.0.0.5:21001, weight: 10}
    - address: 10.0.0.4:8080
  payments: []
`)
	_, updates := watch(t, file.Config{Path: path}, "orders", "payments", "unknown", "a/b")
	diff(t, next(t, updates), discovery.Update{Service: "orders", Instances: []discovery.Instance{
		instance("10.0.0.4:8080", "10.0.0.4:8080", "", 1),
		instance("b", "[::1]:8080", "10.0.0.5:21001", 10),
	}})
	diff(t, next(t, updates), discovery.Update{Service: "payments"})
	diff(t, next(t, updates), discovery.Update{Service: "unknown"})
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), "services: {orders: [{id: a, address: 10.0.0.1:80}]}")
	write(t, filepath.Join(dir, "b.yml"), "services: {orders: [{id: b, address: 10.0.0.2:80}]}")
	write(t, filepath.Join(dir, "README.md"), "not YAML: [")
	_, updates := watch(t, file.Config{Path: dir}, "orders")
	a, b := instance("a", "10.0.0.1:80", "", 1), instance("b", "10.0.0.2:80", "", 1)
	diff(t, next(t, updates), discovery.Update{Service: "orders", Instances: []discovery.Instance{a, b}})
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	diff(t, next(t, updates), discovery.Update{Service: "orders", Instances: []discovery.Instance{b}})
}

func TestBrokenFileKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.yaml")
	var log lockedbuffer.Buffer
	registry := prometheus.NewPedanticRegistry()
	r, updates := watch(t, file.Config{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry}, "orders")
	broken := func(want float64) {
		t.Helper()
		if got, err := testutil.GatherAndCount(registry); got != 1 || err != nil {
			t.Fatal(got, err)
		}
		all, _ := registry.Gather()
		if got := all[0].GetMetric()[0].GetGauge().GetValue(); got != want {
			t.Errorf("chancery_discovery_file_broken = %v, want %v", got, want)
		}
	}
	a := instance("a", "10.0.0.1:80", "", 1)

	write(t, path, "services: {orders: [{id: a, address: 10.0.0.1:80}]}")
	diff(t, next(t, updates), discovery.Update{Service: "orders", Instances: []discovery.Instance{a}})
	broken(0)
	write(t, path, "services: {orders: [{id: a, where: 10.0.0.1:80}]}")
	diff(t, next(t, updates), discovery.Update{
		Service: "orders", Instances: []discovery.Instance{a},
		Held: true, Reason: "the registry's files are at fault",
	})
	broken(1)
	if want := "services.yaml:1:29: services.orders[0].where: is no key here"; !strings.Contains(log.String(), want) {
		t.Errorf("log lacks %q:\n%s", want, log.String())
	}
	if err := r.Ready(); err != nil {
		t.Errorf("Ready = %v although the last good state stays", err)
	}
	write(t, path, "services: {}")
	diff(t, next(t, updates), discovery.Update{Service: "orders"})
	broken(0)
}

func TestReady(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, "services: [")
	r, updates := watch(t, file.Config{Path: path}, "orders")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := r.Ready()
		if err != nil && strings.Contains(err.Error(), `"orders"`) && strings.Contains(err.Error(), "services.yaml:") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("Ready = %v", err)
		}
	}
	write(t, path, "services: {}")
	next(t, updates)
	for deadline := time.Now().Add(10 * time.Second); r.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Ready = %v", r.Ready())
		}
	}
}

func TestRunFailsWithoutADirectory(t *testing.T) {
	t.Parallel()
	r, err := file.New(file.Config{Path: filepath.Join(t.TempDir(), "none", "services.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), nil); err == nil {
		t.Error("Run does not say that it cannot watch")
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"f.yaml: yaml: no documents in stream"}},
		{"no services", "{}", []string{`f.yaml:1:1: services: is required: write "services: {}" for none`}},
		{"cut short", "services:", []string{"f.yaml:1:10: services: is no mapping: write keys, each with its value"}},
		{"no list", "services:\n  orders:\n", []string{"f.yaml:2:10: services.orders: is no list: write [] for no instance"}},
		{"syntax", "services: {", []string{"f.yaml:2:1: did not find expected node content"}},
		{"two documents", "services: {}\n---\nservices: {}", []string{"f.yaml: yaml: expected single document, found multiple"}},
		{"unknown key", "service: {}\nservices: {}", []string{`f.yaml:1:1: service: is no key here: there is "services"`}},
		{"service twice", "services:\n  a: []\n  a: []", []string{`f.yaml:3:3: services: has key "a" twice: remove one`}},
		{"service name", "services: {A_b: []}", []string{
			"f.yaml:1:12: services.A_b: is no service name: write at most 63 lower-case letters, digits and hyphens",
		}},
		{"all at once", "services:\n  a:\n    - {port: 80}\n    - {address: localhost:80, weight: 0}\n    - 10.0.0.1:80\n", []string{
			"f.yaml:3:8: services.a[0].port: is no key here: there are id, address, mesh, weight",
			"f.yaml:3:7: services.a[0].address: is required: write where the service listens, as 10.0.0.5:8080",
			`f.yaml:4:17: services.a[1].address: "localhost:80" is no IP address with a port: write it as 10.0.0.5:8080`,
			`f.yaml:4:39: services.a[1].weight: "0" is no weight: write a number from 1 to 65535`,
			"f.yaml:5:7: services.a[2]: is no mapping: write keys, each with its value",
		}},
		{"same ID", "services: {a: [{address: 10.0.0.1:80}, {id: 10.0.0.1:80, address: 10.0.0.1:81}]}", []string{
			`f.yaml:1:40: services.a[1]: has the ID "10.0.0.1:80" of another instance: write an id of its own`,
		}},
		{"empty ID", `services: {a: [{id: "", address: 10.0.0.1:80}]}`, []string{"f.yaml:1:21: services.a[0].id: is no text"}},
		{"address that is none", "services: {a: [{address: 0.0.0.0:80, mesh: 169.254.169.254:80}]}", []string{
			`f.yaml:1:26: services.a[0].address: address "0.0.0.0" is unspecified`,
			`f.yaml:1:44: services.a[0].mesh: address "169.254.169.254" is link-local`,
		}},
		{"alias", "services: {a: &a [{address: 10.0.0.1:80}], b: *a}", []string{
			"f.yaml:1:47: services.b: is no list: write [] for no instance",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "f.yaml")
			write(t, path, c.text)
			err := file.Validate(path, nil)
			if err == nil {
				t.Fatal("accepted")
			}
			if d := cmp.Diff(strings.Join(c.want, "\n"), err.Error()); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
		})
	}
}
