package sidecar_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/sidecar"
)

func TestIdentityIsGood(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		spoil func(*sidecar.Identity)
		want  string // empty: good
	}{
		"all is well":            {func(*sidecar.Identity) {}, ""},
		"renewal is under way":   {func(id *sidecar.Identity) { id.Certificate.Renews = now.Add(-9 * time.Second) }, ""},
		"renewal, with no pause": {func(id *sidecar.Identity) { id.Certificate.Renews = time.Time{} }, ""},
		"renewal is overdue":     {func(id *sidecar.Identity) { id.Certificate.Renews = now.Add(-11 * time.Second) }, "was to be renewed at 2026-03-01T11:59:49Z"},
		"no certificate":         {func(id *sidecar.Identity) { id.Certificate = nil }, "there is no certificate"},
		"ended":                  {func(id *sidecar.Identity) { id.Certificate.Expires = now }, "ended at 2026-03-01T12:00:00Z"},
		"not taken":              {func(id *sidecar.Identity) { id.Certificate.Fault = "certificate 1 was revoked" }, "certificate 1 was revoked"},
	} {
		id := sidecar.Identity{Certificate: &sidecar.Certificate{Renews: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}}
		test.spoil(&id)
		switch err := id.Good(now); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

// A certificate is good no more as soon as the control plane does not take it,
// which cuts the agent off from the list that names it.
func TestFetchIdentity(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		revoke func(*controlPlane, string) error
		cut    bool
		want   string
	}{
		"the control plane refuses it": {func(cp *controlPlane, serial string) error {
			_, err := cp.ca.RevokeSerial(serial, "stolen")
			return err
		}, true, "the control plane refuses certificate"},
		"the list that came names it": {func(cp *controlPlane, serial string) error {
			_, err := cp.ca.RevokeSerial(serial, "stolen")
			cp.publishTrust()
			return err
		}, false, "was revoked"},
		"the authority is not trusted": {func(cp *controlPlane, _ string) error {
			old := cp.own.Authority()
			next, err := cp.ca.Prepare(false)
			if err != nil {
				return err
			}
			err = errors.Join(cp.ca.Activate(next.ID), cp.ca.Taint(old), cp.ca.Revoke(old))
			cp.losing(1000)
			cp.publishTrust()
			return err
		}, false, "which was revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := newControlPlane(t, public)
			cp.start()
			a := newAgent(t, cp)
			a.config.Join = sidecar.Join{TokenFile: filepath.Join(t.TempDir(), "token")}
			writeToken("%s", 0o600)(t, a.config.Join.TokenFile, cp.token())
			a.start()
			eventually(t, "connected", func() error { return is(a.Status().ControlPlaneConnected, true) })
			fetch := func() sidecar.Identity {
				id, err := sidecar.FetchIdentity(t.Context(), a.config.StateDir)
				check(t, err)
				return id
			}
			before := fetch()
			if err := before.Good(time.Now()); err != nil || before.Certificate.Renews.IsZero() {
				t.Fatalf("good at first: %v, renews %v", err, before.Certificate.Renews)
			}
			check(t, test.revoke(cp, before.Certificate.Serial))
			if test.cut {
				cp.credentials.Cut(func(p identity.Peer) bool { return p.Certificate != nil })
			}
			eventually(t, "not good, and why", func() error {
				id := fetch()
				if err := id.Good(time.Now()); err == nil || !strings.Contains(err.Error(), test.want) {
					return fmt.Errorf("good: %w", err)
				}
				return is(id.Certificate.Renews.IsZero(), true)
			})
		})
	}
}

func TestFetchIdentityOfNoAgent(t *testing.T) {
	t.Parallel()
	if _, err := sidecar.FetchIdentity(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "ask the agent") {
		t.Error(err)
	}
}
