package sidecar_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/sidecar"
)

var orders = identity.ID{Role: identity.RoleService, Name: "orders"}

// enroller is a control plane that signs, unless it fails, without a network.
type enroller struct {
	*authority
	chancerypb.ControlPlaneClient

	c     sidecar.Credentials
	fail  atomic.Bool
	calls atomic.Int32
}

func newEnroller(t *testing.T) *enroller {
	t.Helper()
	return &enroller{authority: newAuthority(t)}
}

// start returns the credentials of an agent that joined before, and now knows
// this control plane.
func (e *enroller) start(dir string, id identity.ID) sidecar.Credentials {
	e.t.Helper()
	e.c = sidecar.NewCredentials(dir, id, e, slog.New(slog.DiscardHandler))
	if e.c.SVID() == nil {
		resp, err := e.JoinWithToken(context.Background(), &chancerypb.JoinWithTokenRequest{
			Token: e.token(), Workload: id.String(), Enroll: &chancerypb.EnrollRequest{Csr: e.c.CSR(e.t)},
		})
		check(e.t, err)
		check(e.t, e.c.Accept(context.Background(), resp))
	}
	return e.c
}

func (e *enroller) Enroll(_ context.Context, req *chancerypb.EnrollRequest, _ ...grpc.CallOption) (*chancerypb.EnrollResponse, error) {
	e.calls.Add(1)
	if e.fail.Load() {
		return nil, status.Error(codes.Unavailable, "away")
	}
	key, err := identity.PublicKey(req.GetCsr())
	if err != nil {
		return nil, err
	}
	return e.renewFor(e.c.SVID().ID, e.c.SVID().Serial(), key)
}

// run runs credentials until the test calls stop.
func run(t *testing.T, c sidecar.Credentials) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- c.WatchExpiry(ctx) }()
	return func() {
		cancel()
		check(t, errors.Join(<-done, <-done))
	}
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestCertificatesAreRenewedHalfWay(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Second, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			e := newEnroller(t)
			e.live(life)
			c := e.start(t.TempDir(), orders)
			defer run(t, c)()
			sleep(life * 44 / 100)
			if _, n := e.counts(); n != 0 {
				t.Errorf("renewed %d times in less than the half of a life of %v", n, life)
			}
			sleep(life * 12 / 100)
			if _, n := e.counts(); n != 1 {
				t.Errorf("renewed %d times at the half of a life of %v", n, life)
			}
			for range 100 {
				sleep(life / 5)
				if left := time.Until(c.SVID().Expires()); left < life*2/5 {
					t.Fatalf("%v are left of a life of %v", left, life)
				}
			}
		})
	}
}

func TestRenewalsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnroller(t)
		earliest, latest := time.Duration(1<<62), time.Duration(0)
		for range 50 {
			c := sidecar.NewCredentials(t.TempDir(), orders, e, slog.New(slog.DiscardHandler))
			resp, err := e.JoinWithToken(t.Context(), &chancerypb.JoinWithTokenRequest{
				Token: e.token(), Workload: "service/orders", Enroll: &chancerypb.EnrollRequest{Csr: c.CSR(t)},
			})
			check(t, err)
			check(t, c.Accept(t.Context(), resp))
			due := time.Until(c.Due())
			earliest, latest = min(earliest, due), max(latest, due)
		}
		if spread := latest - earliest; spread < time.Hour/20 || spread > time.Hour/10 {
			t.Errorf("50 renewals are spread over %v", spread)
		}
	})
}

// The control plane is away until the certificate has ended: the agent tries,
// with measure, is loud, and renews when the control plane is back in time.
func TestExpiryThatNearsIsLoud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnroller(t)
		e.live(24 * time.Hour)
		c := e.start(t.TempDir(), orders)
		defer run(t, c)()
		e.fail.Store(true)
		sleep(17 * time.Hour)
		if problems := strings.Join(c.Problems(), "\n"); strings.Contains(problems, "certificate: ends") || !strings.Contains(problems, "away") {
			t.Errorf("problems after 17 of 24 hours: %q", problems)
		}
		sleep(2 * time.Hour)
		if problems := strings.Join(c.Problems(), "\n"); !strings.Contains(problems, "certificate: ends in 6h0m0s") {
			t.Errorf("problems after 19 of 24 hours: %q", problems)
		}
		before := e.calls.Load()
		sleep(time.Hour)
		if n := e.calls.Load() - before; n < 50 || n > 80 {
			t.Errorf("tried %d times in an hour", n)
		}
		e.fail.Store(false)
		sleep(time.Minute + 15*time.Second)
		if left := time.Until(c.SVID().Expires()); left < 23*time.Hour {
			t.Errorf("%v are left although the control plane is back", left)
		}
		if problems := c.Problems(); len(problems) > 0 {
			t.Errorf("problems after a renewal: %q", problems)
		}
		e.fail.Store(true)
		sleep(25 * time.Hour)
		if problems := strings.Join(c.Problems(), "\n"); !strings.Contains(problems, "certificate: ended") {
			t.Errorf("problems after the end: %q", problems)
		}
	})
}

func TestTaintedAuthorityIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnroller(t)
		c := e.start(t.TempDir(), orders)
		defer run(t, c)()
		old := c.SVID().Authority()
		next, err := e.ca.Prepare(false)
		check(t, err)
		check(t, e.ca.Activate(next.ID))
		check(t, c.TakeTrust(e.ca.Trust()))
		sleep(5 * time.Second)
		if c.SVID().Authority() != old {
			t.Error("renewed before it was asked to")
		}
		check(t, e.ca.Taint(old))
		check(t, c.TakeTrust(e.ca.Trust()))
		sleep(2 * time.Second)
		if c.SVID().Authority() != next.ID {
			t.Error("not renewed although the authority is tainted")
		}
		if _, n := e.counts(); n != 1 {
			t.Errorf("renewed %d times", n)
		}
	})
}

func TestCertificatesAreChecked(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*enroller, *chancerypb.EnrollResponse){
		"no certificate":      func(_ *enroller, r *chancerypb.EnrollResponse) { r.Chain = nil },
		"no trust":            func(_ *enroller, r *chancerypb.EnrollResponse) { r.Trust = nil },
		"garbage":             func(_ *enroller, r *chancerypb.EnrollResponse) { r.Chain[0] = r.Chain[0][1:] },
		"no intermediate":     func(_ *enroller, r *chancerypb.EnrollResponse) { r.Chain = r.Chain[:1] },
		"another key":         func(e *enroller, r *chancerypb.EnrollResponse) { r.Chain[0] = e.issue(orders).Chain[0].Raw },
		"another mesh":        func(e *enroller, r *chancerypb.EnrollResponse) { r.Trust = newAuthority(e.t).ca.Trust() },
		"trust without lists": func(_ *enroller, r *chancerypb.EnrollResponse) { r.Trust.Authorities = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnroller(t)
			dir := t.TempDir()
			before := e.start(dir, orders).SVID().Serial()
			e.spoil = func(r *chancerypb.EnrollResponse) {
				r.Trust = cloneOf(r.Trust)
				spoil(e, r)
			}
			if err := e.c.Enroll(t.Context()); err == nil {
				t.Error("taken")
			}
			if e.c.SVID().Serial() != before || e.start(dir, orders).SVID().Serial() != before {
				t.Error("the certificate before is not kept")
			}
		})
	}
}

// An answer that is lost, or a crash before it comes, leaves the key of the
// request on disk, and the next agent asks with the same one.
func TestRequestsAreRepeatedWithTheirKey(t *testing.T) {
	t.Parallel()
	e := newEnroller(t)
	dir := t.TempDir()
	e.start(dir, orders)
	e.lose = 1
	if err := e.c.Enroll(t.Context()); err == nil {
		t.Fatal("an answer that was lost came")
	}
	asked := e.c.CSR(t)
	e.start(dir, orders)
	if again := e.c.CSR(t); !sameKey(t, asked, again) {
		t.Error("the next agent asks with another key")
	}
	check(t, e.c.Enroll(t.Context()))
	if !sameKeyAs(t, asked, e.c.SVID()) {
		t.Error("the certificate is of another key")
	}
	if sameKey(t, asked, e.c.CSR(t)) {
		t.Error("a key is used for two certificates")
	}
	assertPrivate(t, filepath.Join(dir, "svid.pem"))
	assertPrivate(t, filepath.Join(dir, "svid.next.key"))
}

// A clock that is wrong is told from a control plane that is.
func TestClocksApart(t *testing.T) {
	for name, skew := range map[string]time.Duration{"fast": 2 * time.Hour, "slow": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(24 * time.Hour)
				e := newEnroller(t)
				c := sidecar.NewCredentials(t.TempDir(), orders, e, slog.New(slog.DiscardHandler))
				csr := c.CSR(t)
				e.shift(-skew)
				resp, err := e.JoinWithToken(t.Context(), &chancerypb.JoinWithTokenRequest{
					Token: e.token(), Workload: "service/orders", Enroll: &chancerypb.EnrollRequest{Csr: csr},
				})
				check(t, err)
				if err := c.Accept(t.Context(), resp); err == nil || !strings.Contains(err.Error(), "clock") {
					t.Errorf("the error does not speak of the clock: %v", err)
				}
			})
		})
	}
}
