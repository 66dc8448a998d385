package sidecar_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestAgentStartsWithoutTheControlPlane(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	changed := endpoints(t, "orders", 9)
	cp.sets[resource.EndpointType].Apply([]*xds.Resource{changed})
	eventually(t, "the state is promoted, and the endpoints with it", func() error {
		if _, err := os.Stat(filepath.Join(a.config.StateDir, "lastgood.promoted")); err != nil {
			return err
		}
		return is(e.versions(resource.EndpointType)["orders"], changed.Version)
	})
	eventually(t, "so are the endpoints on disk", onDisk(a, changed))
	cp.stop()
	e.disconnect()
	a.stop()

	begin := time.Now()
	a.start()
	fresh := newFakeEnvoy(t, a.socket())
	if got := fresh.knows("orders"); got != known {
		t.Errorf("first check: %d", got)
	}
	t.Logf("start to first check: %v", time.Since(begin))
	fresh.connect()
	eventually(t, "a fresh Envoy gets everything", func() error {
		return is(fresh.names(), []string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"})
	})
	t.Logf("start to all configuration: %v", time.Since(begin))
	if got := fresh.versions(resource.EndpointType)["orders"]; got != changed.Version {
		t.Error("endpoints are those of the revision, not the last ones")
	}
	eventually(t, "ready", a.Ready)

	cp.start()
	cp.set("rev-2", view(t, "stock")...)
	eventually(t, "the control plane's word counts when it is back", func() error {
		return is(fresh.names(), []string{"CDS stock", "EDS stock", "LDS gateway", "RDS gateway"})
	})
}

// onDisk tells whether the next agent would find a resource as it is.
func onDisk(a *agent, r *xds.Resource) func() error {
	return func() error { return is(sidecar.OnDisk(a.Agent, r.TypeURL, r.Name), r.Version) }
}

func TestRestartForgetsWhatEnvoyNeverAcknowledged(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	hold := make(chan struct{})
	defer close(hold)
	e.set(func(e *fakeEnvoy) { e.hold, e.events = hold, nil })
	cp.set("rev-2", view(t, "orders", "stock")...)
	eventually(t, "Envoy gets rev-2", func() error { return is(e.history(), []string{"CDS +stock"}) })
	cp.stop()
	e.disconnect()
	a.stop()

	a.start()
	fresh := newFakeEnvoy(t, a.socket())
	fresh.connect()
	eventually(t, "rev-1 is served", func() error { return is(a.Status().AcknowledgedRevision, "rev-1") })
	if diff := cmp.Diff([]string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"}, fresh.names()); diff != "" {
		t.Errorf("Envoy holds (-want +got):\n%s", diff)
	}
}

func TestEndpointsAreKeptWhileARevisionIsHeldUp(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	e.set(func(e *fakeEnvoy) { e.reject = func(name string) bool { return name == "bad" } })
	cp.set("rev-2", view(t, "orders", "bad")...)
	eventually(t, "the NACK is reported", func() error { return is(nacked(cp, resource.ClusterType), "bad: bad") })
	changed := endpoints(t, "orders", 9)
	cp.sets[resource.EndpointType].Apply([]*xds.Resource{changed})
	eventually(t, "endpoints arrive", func() error { return is(e.versions(resource.EndpointType)["orders"], changed.Version) })
	eventually(t, "they are on disk", onDisk(a, changed))
	cp.stop()
	e.disconnect()
	a.stop()

	a.start()
	fresh := newFakeEnvoy(t, a.socket())
	fresh.connect()
	eventually(t, "the last good revision has the last endpoints", func() error {
		return errors.Join(is(fresh.names(), []string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"}),
			is(fresh.versions(resource.EndpointType)["orders"], changed.Version))
	})
}

func TestCredentialsSurviveRestarts(t *testing.T) {
	cp, a, e := startMesh(t, "orders")
	read := func(name string) string {
		t.Helper()
		info, err := os.Stat(filepath.Join(a.config.StateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		text, err := os.ReadFile(filepath.Join(a.config.StateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	eventually(t, "enrolled", a.Ready)
	passportKey, certificate := read("passport.key"), read("svid.pem")
	_, chain := pem.Decode([]byte(certificate))
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := leaf.URIs[0].String(), "spiffe://shop.example/gateway/public"; got != want {
		t.Errorf("certificate is of %q, want %q", got, want)
	}
	cp.stop()
	e.disconnect()
	a.stop()
	a.start()
	e.connect()
	eventually(t, "ready without the control plane", a.Ready)
	if !strings.HasPrefix(read("passport.key"), passportKey) || read("svid.pem") != certificate {
		t.Error("credentials changed without need")
	}
	if got := a.Status().SPIFFEID; got != "spiffe://shop.example/gateway/public" {
		t.Errorf("SPIFFE ID %q", got)
	}
}

func TestStateDirBelongsToOneAgent(t *testing.T) {
	cp, a, _ := startMesh(t, "orders")
	other := newAgent(t, cp)
	other.config.StateDir = a.config.StateDir
	other.start()
	err := <-other.done
	other.cancel()
	other.cancel = nil
	if err == nil {
		t.Error("two agents run in one state directory")
	}
}
