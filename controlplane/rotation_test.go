package controlplane_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// The life of authorities and certificates in these tests.
const (
	authorityLife = time.Hour
	leafLife      = 5 * time.Minute
)

// fleet is a CA, its rotation, and agents that do what they are told.
type fleet struct {
	t   *testing.T
	dir string
	// supplied is nil where the CA makes its own root.
	supplied *ca.Supplied
	ca       *ca.CA
	driver   controlplane.Rotation
	log      *logBuffer
	metrics  *prometheus.Registry
	// failed are the steps that were taken down as failed, and why.
	failed []string
	stop   func()
	agents []*member
}

// member is one agent.
type member struct {
	fleet *fleet
	cert  ca.Certificate
	// used is the certificate that its Envoy has.
	used ca.Certificate
	// stuck members hear of nothing; lost ones do not renew either.
	stuck, lost bool
	disconnect  func()
}

// inFleet runs a test in a bubble with a fleet that begins now.
func inFleet(t *testing.T, test func(f *fleet)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir() + "/ca"
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, dir: dir}
		f.start()
		for _, id := range []identity.ID{gateway, orders, inventory} {
			f.join(id)
		}
		defer func() { f.stop() }()
		test(f)
	})
}

// start opens the CA and runs a driver that knows nothing.
func (f *fleet) start() {
	f.t.Helper()
	authority, err := ca.Open(ca.Config{
		Dir: f.dir, TrustDomain: "shop.example", MaxLeaf: leafLife,
		Lifetimes: ca.Lifetimes{Authority: authorityLife, Root: 10 * authorityLife}, Supplied: f.supplied,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.ca, f.log, f.metrics = authority, &logBuffer{}, prometheus.NewPedanticRegistry()
	f.driver = controlplane.NewRotation(slog.New(slog.NewTextHandler(f.log, nil)), f.metrics, func(step controlplane.StepStatus, by string, err error) {
		if err != nil {
			f.failed = append(f.failed, fmt.Sprintf("%s by %s: %v", step.Step, by, err))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.driver.Run(ctx, authority) }()
	f.stop = func() {
		cancel()
		<-done
		if err := authority.Close(); err != nil {
			f.t.Error(err)
		}
	}
}

// crash ends the control plane and starts another, which agents find.
func (f *fleet) crash() {
	f.stop()
	f.start()
	for _, m := range f.agents {
		m.disconnect = f.driver.Connect(m.cert)
	}
}

func (f *fleet) join(id identity.ID) *member {
	m := &member{fleet: f}
	m.sign(ca.Request{ID: id})
	m.used = m.cert
	m.disconnect = f.driver.Connect(m.cert)
	f.agents = append(f.agents, m)
	return m
}

func (m *member) sign(req ca.Request) {
	m.fleet.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.fleet.t.Fatal(err)
	}
	req.Key, req.TTL = key.Public(), leafLife
	if _, m.cert, err = m.fleet.ca.Sign(req); err != nil {
		m.fleet.t.Fatal(err)
	}
}

// renew gets another certificate, of which Envoy does not know yet.
func (m *member) renew() {
	m.fleet.t.Helper()
	m.sign(ca.Request{ID: m.cert.ID, Lineage: m.cert.Lineage, Parent: m.cert.Serial})
}

// use has Envoy use the newest certificate, and says so.
func (m *member) use() {
	m.used = m.cert
	m.report()
}

// isTainted reports whether its authority is, as far as it has heard.
func (m *member) isTainted() bool {
	return !m.stuck && slices.ContainsFunc(m.fleet.ca.Authorities(), func(a ca.Authority) bool {
		return a.ID == m.cert.Authority && a.State == ca.Tainted
	})
}

// report says that agent and Envoy have the trust of now.
func (m *member) report() {
	m.fleet.driver.Note(m.cert, &chancerypb.ReportRequest{
		Instance: "1", TrustSequence: m.fleet.ca.Trust().GetSequence(),
		SvidSerial: m.used.Serial, SvidAuthority: m.used.Authority, SvidExpires: timestamppb.New(m.used.Expires),
	})
}

// pass lets time go by, in which agents renew at about half of their
// certificates' lives, and report.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(30*time.Second, time.Until(end)))
		synctest.Wait() // where both act at one moment, the driver is the first
		for _, m := range f.agents {
			if !m.lost && (time.Until(m.cert.Expires) <= leafLife/2 || m.isTainted()) {
				m.renew()
			}
			if !m.lost && !m.stuck {
				m.use()
			}
		}
		if err := f.ca.Expire(); err != nil {
			f.t.Fatal(err)
		}
		synctest.Wait()
	}
}

// look lets the driver look, and nothing else happen.
func (f *fleet) look() {
	time.Sleep(2 * controlplane.RotateEvery)
	synctest.Wait()
}

// states returns those of the authorities in the order of their making.
func (f *fleet) states() string {
	var states []string
	for _, a := range f.ca.Authorities() {
		states = append(states, string(a.State))
	}
	return strings.Join(states, " ")
}

func (f *fleet) want(states string) {
	f.t.Helper()
	if got := f.states(); got != states {
		f.t.Fatalf("authorities are %q, want %q; log:\n%s", got, states, f.log)
	}
}

func (f *fleet) metric(name string) float64 { return (&rig{t: f.t, metrics: f.metrics}).metric(name) }

func TestRotation(t *testing.T) {
	t.Run("each step waits for the last proxy", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			last := f.agents[2]
			f.pass(authorityLife/2 - time.Minute)
			f.want("active")
			last.stuck = true
			f.pass(2 * time.Minute)
			f.want("active prepared")
			f.pass(10 * time.Minute)
			f.want("active prepared")
			if !f.log.has("waits for proxies") || !f.log.has("service/inventory") {
				t.Errorf("nobody is told who is waited for:\n%s", f.log)
			}

			// It hears of the new authority: all can renew, and are told to.
			last.use()
			f.look()
			f.want("tainted active")

			// All renew, but one has not, and then its Envoy has not yet.
			for _, m := range f.agents[:2] {
				m.renew()
				m.use()
			}
			f.look()
			f.want("tainted active")
			last.renew()
			f.look()
			f.want("tainted active")
			last.use()
			f.look()
			f.want("revoked active")
			if got := f.metric("chancery_rotation_steps_total"); got != 4 {
				t.Errorf("%v steps are counted, want 4", got)
			}
			if got := f.metric("chancery_rotation_steps_forced_total"); got != 0 {
				t.Errorf("%v steps were forced", got)
			}
		})
	})

	t.Run("an old authority is trusted as long as connections by it are open", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			f.driver.LastRequest(time.Minute)
			f.pass(authorityLife/2 + 30*time.Second) // all have just renewed
			f.want("tainted active")
			f.pass(55 * time.Second)
			f.want("tainted active")
			f.pass(10 * time.Second)
			f.want("revoked active")
		})
	})

	t.Run("a proxy that never hears does not keep the authority until its end", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			deaf := f.agents[1]
			deaf.stuck = true
			f.pass(authorityLife*5/6 - time.Minute)
			f.want("active prepared")
			f.pass(2 * time.Minute)
			// Forced. That all renew would help nobody: it would refuse them.
			f.want("old active")
			if !f.log.has("forced without this proxy") || !f.log.has("service/orders 1") {
				t.Errorf("the force is not loud:\n%s", f.log)
			}
			if got := f.metric("chancery_rotation_steps_forced_total"); got != 1 {
				t.Errorf("%v steps were forced, want 1", got)
			}
			deaf.stuck = false
			f.pass(90 * time.Second)
			f.want("revoked active")
		})
	})

	t.Run("a certificate that is lost ends, and then nobody waits for it", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			f.pass(authorityLife/2 - time.Minute)
			lost := f.agents[0]
			lost.lost = true
			lost.disconnect()
			f.pass(2 * time.Minute)
			f.want("active prepared")
			if got := f.driver.Next(f.ca)[0].Waiting; len(got) != 1 || got[0].Name != "gateway/public" || got[0].Reason != "is away" {
				t.Errorf("waiting: %+v", got)
			}
			f.pass(leafLife)
			f.want("revoked active")
		})
	})

	t.Run("who heard and went away is not waited for", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			f.pass(authorityLife/2 - time.Minute)
			f.agents[1].stuck = true
			f.pass(90 * time.Second)
			f.want("active prepared")
			f.agents[0].lost = true
			f.agents[0].disconnect()
			f.agents[1].stuck = false
			f.pass(time.Minute)
			f.want("tainted active")
		})
	})
}

func TestRotationGoesOnAfterACrash(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.crash()
		f.pass(authorityLife / 2)
		f.crash()
		f.look()
		f.want("active prepared") // what agents told the one before is not known

		for _, m := range f.agents {
			m.report()
		}
		f.look()
		f.want("tainted active")
		f.crash()
		f.look()
		f.want("tainted active")

		for _, m := range f.agents {
			m.renew()
		}
		f.crash()
		for _, m := range f.agents {
			m.report() // Envoys have the old certificate yet
		}
		f.look()
		f.want("tainted active")
		for _, m := range f.agents {
			m.use()
		}
		f.look()
		f.want("revoked active")
	})
}

// A crash between activation and taint leaves an authority that is old.
func TestRotationGoesOnFromAnOldAuthority(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.agents[0].stuck = true
		f.pass(authorityLife/2 + time.Minute)
		f.want("active prepared")
		f.stop()
		authority, err := ca.Open(ca.Config{Dir: f.dir, TrustDomain: "shop.example"})
		if err != nil {
			f.t.Fatal(err)
		}
		if err := authority.Activate(authority.Authorities()[1].ID); err != nil {
			f.t.Fatal(err)
		}
		if err := authority.Close(); err != nil {
			f.t.Fatal(err)
		}
		f.start()
		f.look()
		f.want("old active")
		for _, m := range f.agents {
			m.disconnect = f.driver.Connect(m.cert)
			m.report()
		}
		f.look()
		f.want("tainted active")
	})
}

func TestRotationWhenAllHasEnded(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.stop()
		time.Sleep(3 * authorityLife)
		f.start()
		f.look()
		states := strings.Fields(f.states())
		if states[len(states)-1] != "active" || !f.ca.Authorities()[len(states)-1].NotAfter.After(time.Now()) {
			f.t.Errorf("authorities are %q", f.states())
		}
	})
}

func TestRotationLeavesAnOperatorsOwnAlone(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.pass(time.Minute)
		first := f.ca.Authorities()[0].ID
		next, err := f.ca.Prepare(true)
		if err != nil {
			f.t.Fatal(err)
		}
		f.pass(5 * time.Minute)
		f.want("active prepared") // though all know it
		if err := f.driver.Command(f.ca, controlplane.StepActivate, "", false); err != nil {
			f.t.Fatal(err)
		}
		f.pass(5 * time.Minute)
		f.want("old active") // though all could renew
		if err := f.driver.Command(f.ca, controlplane.StepTaint, first, false); err != nil {
			f.t.Fatal(err)
		}
		f.pass(5 * time.Minute)
		f.want("tainted active") // though nobody uses it
		if got := f.ca.Authorities()[1].ID; got != next.ID {
			f.t.Errorf("%s is active, want %s", got, next.ID)
		}
		// Half of the first one's life is over: what is left is done.
		f.pass(authorityLife/2 - 15*time.Minute - 30*time.Second)
		f.want("revoked active")
	})
}

func TestRotationCommands(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.agents[1].stuck = true
		f.pass(time.Minute)
		first := f.ca.Authorities()[0].ID
		command := func(step controlplane.Step, authority string, force bool) error {
			f.t.Helper()
			return f.driver.Command(f.ca, step, authority, force)
		}
		refused := func(err error, names ...string) {
			f.t.Helper()
			waiting, ok := errors.AsType[*controlplane.WaitingError](err)
			if !ok {
				f.t.Fatalf("not refused because of proxies: %v", err)
			}
			var got []string
			for _, p := range waiting.Step.Waiting {
				got = append(got, p.Name)
				if p.Since.IsZero() || p.Serial == "" {
					f.t.Errorf("too little is said of %+v", p)
				}
			}
			if strings.Join(got, " ") != strings.Join(names, " ") {
				f.t.Errorf("waits for %v, want %v", got, names)
			}
		}
		for _, step := range []controlplane.Step{controlplane.StepActivate, controlplane.StepTaint, controlplane.StepRevoke} {
			if err := command(step, "", true); err == nil {
				f.t.Errorf("%s of nothing was done", step)
			}
			if err := command(step, first, true); err == nil {
				f.t.Errorf("%s of the active authority was done", step)
			}
		}
		f.want("active")

		if _, err := f.ca.Prepare(false); err != nil {
			f.t.Fatal(err)
		}
		f.pass(time.Minute)
		refused(command(controlplane.StepActivate, "", false), "service/orders")
		f.want("active prepared")
		if err := command(controlplane.StepActivate, "", true); err != nil {
			f.t.Fatal(err)
		}
		refused(command(controlplane.StepTaint, first, false), "service/orders")
		if err := command(controlplane.StepTaint, first, true); err != nil {
			f.t.Fatal(err)
		}
		refused(command(controlplane.StepRevoke, first, false), "gateway/public", "service/orders", "service/inventory")
		f.want("tainted active")
		if err := command(controlplane.StepRevoke, first, true); err != nil {
			f.t.Fatal(err)
		}
		f.want("revoked active")
	})
}

// After a scale-down an instance is gone, and its certificate good for long.
func TestRotationWithoutWhoIsGoneForGood(t *testing.T) {
	inFleet(t, func(f *fleet) {
		gone, left := f.agents[:2], f.agents[2]
		time.Sleep(time.Minute)
		f.stop()
		f.start() // it has never heard of the first
		f.driver.Connect(gone[1].cert)()
		f.driver.Connect(left.cert)
		if _, err := f.ca.Prepare(false); err != nil {
			f.t.Fatal(err)
		}
		left.report()
		activate := func() error { return f.driver.Command(f.ca, controlplane.StepActivate, "", false) }
		err := activate()
		waiting, ok := errors.AsType[*controlplane.WaitingError](err)
		if !ok || !strings.HasSuffix(err.Error(), "2 proxies are not ready for it") {
			f.t.Fatalf("not refused because of two proxies: %v", err)
		}
		for n, want := range []string{
			"gateway/public (certificate " + gone[0].cert.Serial + ", ends " + gone[0].cert.Expires.Format(time.RFC3339) +
				") has not connected to this control plane, and has its certificate since " + gone[0].cert.Issued.Format(time.RFC3339),
			"service/orders 1 (certificate " + gone[1].cert.Serial + ", ends " + gone[1].cert.Expires.Format(time.RFC3339) +
				") is away since " + time.Now().Format(time.RFC3339),
		} {
			if p := waiting.Step.Waiting[n]; p.String() != want || !p.Away {
				f.t.Errorf("waits for %q, away: %v; want %q", p, p.Away, want)
			}
		}

		for n, m := range gone {
			if _, err := f.ca.RevokeSerial(m.cert.Serial, "scaled down"); err != nil {
				f.t.Fatal(err)
			}
			left.report()
			err := activate()
			if n == 0 && (err == nil || !strings.HasSuffix(err.Error(), "1 proxy is not ready for it")) || n == 1 && err != nil {
				f.t.Errorf("with %d revoked: %v", n+1, err)
			}
		}
		f.want("old active")
	})
}
