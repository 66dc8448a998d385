package sidecar_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/sidecar"
)

// enroller is a control plane that signs, unless it fails.
type enroller struct {
	chancerypb.ControlPlaneClient

	ca    *identity.CA
	id    identity.ID
	fail  atomic.Bool
	calls atomic.Int32
	spoil func(*chancerypb.EnrollResponse)
}

func (e *enroller) Enroll(_ context.Context, req *chancerypb.EnrollRequest, _ ...grpc.CallOption) (*chancerypb.EnrollResponse, error) {
	e.calls.Add(1)
	if e.fail.Load() {
		return nil, errors.New("away")
	}
	public, err := identity.PublicKey(req.GetCsr())
	if err != nil {
		return nil, err
	}
	der, err := e.ca.Sign(public, e.id, 24*time.Hour)
	resp := &chancerypb.EnrollResponse{Chain: [][]byte{der}, Bundle: e.ca.Bundle()}
	if e.spoil != nil {
		e.spoil(resp)
	}
	return resp, err
}

func TestCredentialsAreRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnroller(t)
		c := sidecar.NewCredentials(t.TempDir(), public, e, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		sleep := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		sleep(time.Hour)
		if n := e.calls.Load(); n != 1 {
			t.Errorf("enrolled %d times in the first hour", n)
		}
		sleep(13 * time.Hour)
		if n := e.calls.Load(); n != 2 {
			t.Errorf("enrolled %d times in 14 hours of a life of 24", n)
		}
		if left := time.Until(c.Expires()); left < 20*time.Hour {
			t.Errorf("the certificate has %v left after its renewal", left)
		}
		// The control plane is away: try again and again, with measure.
		e.fail.Store(true)
		sleep(24 * time.Hour)
		before := e.calls.Load()
		sleep(time.Hour)
		if n := e.calls.Load() - before; n < 1000 || n > 3000 {
			t.Errorf("tried %d times in an hour without a control plane", n)
		}
		e.fail.Store(false)
		sleep(3 * time.Second)
		if !time.Now().Before(c.Expires()) {
			t.Error("not renewed although the control plane is back")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestCredentialsAreChecked(t *testing.T) {
	t.Parallel()
	other := newEnroller(t)
	for _, test := range []struct {
		name  string
		spoil func(*enroller, *chancerypb.EnrollResponse)
		ok    bool
	}{
		{"good", func(*enroller, *chancerypb.EnrollResponse) {}, true},
		{"no certificate", func(_ *enroller, r *chancerypb.EnrollResponse) { r.Chain = nil }, false},
		{"no bundle", func(_ *enroller, r *chancerypb.EnrollResponse) { r.Bundle = nil }, false},
		{"garbage", func(_ *enroller, r *chancerypb.EnrollResponse) { r.Chain[0] = r.Chain[0][1:] }, false},
		{"another key", func(e *enroller, r *chancerypb.EnrollResponse) { r.Chain[0] = e.sign(t, otherKey(t), public) }, false},
		{"another authority", func(_ *enroller, r *chancerypb.EnrollResponse) { r.Bundle = other.ca.Bundle() }, false},
		{"another name", func(e *enroller, r *chancerypb.EnrollResponse) {
			leaf, err := x509.ParseCertificate(r.Chain[0])
			check(t, err)
			r.Chain[0] = e.sign(t, leaf.PublicKey, identity.ID{Role: identity.RoleGateway, Name: "publi"})
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEnroller(t)
			e.spoil = func(r *chancerypb.EnrollResponse) { test.spoil(e, r) }
			dir := t.TempDir()
			c := sidecar.NewCredentials(dir, public, e, slog.New(slog.DiscardHandler))
			if err := c.Enroll(t.Context()); (err == nil) != test.ok {
				t.Errorf("enroll: %v, want ok %v", err, test.ok)
			}
			if c.Mints() != test.ok {
				t.Errorf("mints: %v, want %v: a key is used once it is endorsed, not before", c.Mints(), test.ok)
			}
			again := sidecar.NewCredentials(dir, public, e, slog.New(slog.DiscardHandler))
			if again.Mints() != test.ok || again.Expires().IsZero() == test.ok {
				t.Errorf("after a restart: mints %v, expires %v", again.Mints(), again.Expires())
			}
		})
	}
}

func newEnroller(t *testing.T) *enroller {
	t.Helper()
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), trustDomain)
	check(t, err)
	return &enroller{ca: ca, id: public}
}

func (e *enroller) sign(t *testing.T, key any, id identity.ID) []byte {
	t.Helper()
	der, err := e.ca.Sign(key, id, time.Hour)
	check(t, err)
	return der
}

func otherKey(t *testing.T) any {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key.Public()
}
