package sidecar_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/sidecar"
)

// mortal is an agent with an Envoy that can die: a process without xDS, and a
// fakeEnvoy without a process.
type mortal struct {
	*agent
	*fakeEnvoy
}

func startMortal(t *testing.T, cp *controlPlane) *mortal {
	t.Helper()
	m := &mortal{agent: newAgent(t, cp)}
	m.probation = longProbation
	m.config.EnvoyCommand = []string{script(t, "1.40.0", "exec sleep 1000")}
	m.config.DrainTime = 100 * time.Millisecond
	m.agent.start()
	m.live(t, 0)
	return m
}

// live connects an Envoy that holds nothing when its process, which is not the
// one before, runs.
func (m *mortal) live(t *testing.T, before int) {
	t.Helper()
	eventually(t, "envoy is started", func() error {
		return errors.Join(running(m.agent)(), is(m.pid() != before, true))
	})
	m.fakeEnvoy = newFakeEnvoy(t, m.socket())
	m.connect()
}

// die kills Envoy and lets the next one live.
func (m *mortal) die(t *testing.T) {
	t.Helper()
	m.disconnect()
	pid := m.pid()
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	m.live(t, pid)
}

var (
	firstView  = []string{"CDS orders", "EDS orders", "LDS gateway", "RDS gateway"}
	secondView = []string{"CDS orders", "CDS stock", "EDS orders", "EDS stock", "LDS gateway", "RDS gateway"}
)

// longProbation is time enough for what has to happen within it.
const longProbation = 10 * time.Second

var condemned = fmt.Sprintf("envoy died twice within %v of taking this revision", longProbation)

func TestRevisionThatEnvoyDiesOfIsRefused(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp)
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))

	cp.set("rev-2", view(t, "orders", "stock")...)
	eventually(t, "Envoy takes rev-2", func() error { return is(m.names(), secondView) })
	if err := acknowledged(cp, "rev-1")(); err != nil {
		t.Errorf("before Envoy lived with rev-2: %v", err)
	}
	m.die(t)
	eventually(t, "one death may be chance", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "the agent goes back to rev-1", func() error {
		return errors.Join(is(m.names(), firstView), is(m.knows("stock"), unknown), is(m.knows("orders"), known))
	})
	eventually(t, "the control plane is told", func() error {
		return errors.Join(is(cp.lastReport().GetHeldRevision(), "rev-2"), is(nacked(cp, resource.ListenerType), condemned),
			acknowledged(cp, "rev-1")())
	})

	// So it is for the next agent, as long as the control plane is away.
	cp.stop()
	m.disconnect()
	m.agent.stop()
	m.agent.start()
	m.live(t, 0)
	eventually(t, "rev-1 is the last good one", func() error {
		return errors.Join(is(m.Status().HeldRevision, "rev-1"), is(m.names(), firstView))
	})
	cp.set("rev-3", view(t, "stock")...)
	cp.start()
	eventually(t, "the next revision is rolled out", acknowledged(cp, "rev-3"))
	if err := is(nacked(cp, resource.ListenerType), ""); err != nil {
		t.Error(err)
	}
}

// An agent that starts with a revision on probation can go back, too.
func TestRestoredRevisionThatEnvoyDiesOfIsRefused(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp)
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	cp.set("rev-2", view(t, "orders", "stock")...)
	eventually(t, "Envoy takes rev-2", func() error { return is(m.names(), secondView) })
	eventually(t, "the agent knows", func() error { return lastGoodFile(m.agent, "acknowledged") })
	cp.stop()
	m.disconnect()
	m.agent.stop()

	m.agent.start()
	m.live(t, 0)
	eventually(t, "Envoy takes rev-2 from disk", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "and again", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "the agent goes back to rev-1", func() error { return is(m.names(), firstView) })
	cp.start()
	eventually(t, "the control plane is told", func() error {
		return errors.Join(is(cp.lastReport().GetHeldRevision(), "rev-2"), is(nacked(cp, resource.ListenerType), condemned))
	})
}

// What is the same to Envoy is one: keys that change do not keep a revision from
// being refused.
func TestKeysThatChangeHideNoDeath(t *testing.T) {
	t.Parallel()
	s := newShop("internal", "internal")
	cp := newControlPlane(t, public)
	cp.set("rev-1", s.view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp)
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	cp.set("rev-2", s.view(t, "orders", "stock")...)
	eventually(t, "Envoy takes rev-2", func() error { return is(m.names(), secondView) })
	m.die(t)
	s.id, s.key = credential.GenerateAPIKey()
	cp.set("rev-3", s.view(t, "orders", "stock")...)
	eventually(t, "rev-3 is decided by", func() error { return is(m.reason("orders", s.key), "allowed") })
	eventually(t, "one death may be chance", func() error { return is(m.names(), secondView) })
	m.die(t)
	eventually(t, "the agent goes back to rev-1", func() error { return is(m.names(), firstView) })
	told := func(revision string) {
		t.Helper()
		eventually(t, "the control plane is told", func() error {
			return errors.Join(is(cp.lastReport().GetHeldRevision(), revision), is(nacked(cp, resource.ListenerType), condemned))
		})
	}
	told("rev-3")
	for range 3 { // none of which is kept for ever
		s.id, s.key = credential.GenerateAPIKey()
		next := s.view(t, "orders", "stock")
		cp.set("rev-4 with "+s.id, next...)
		told("rev-4 with " + s.id)
		cp.sets[accountsType].Replace(byType(next)[accountsType])
	}
	if n := sidecar.HeldAccounts(m.Agent); n > 6 { // now, the newest, and of rev-1
		t.Errorf("%d resources with accounts are held", n)
	}
	if err := is(m.names(), firstView); err != nil {
		t.Errorf("Envoy is given again what it died of: %v", err)
	}
	cp.set("rev-5", s.view(t, "stock")...)
	eventually(t, "something else is rolled out", acknowledged(cp, "rev-5"))
}

// A revision that only has another key is not what Envoy dies of.
func TestKeysAreNotWhatEnvoyDiesOf(t *testing.T) {
	t.Parallel()
	s := newShop("internal", "internal")
	cp := newControlPlane(t, public)
	cp.set("rev-1", s.view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp)
	eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
	m.die(t)
	eventually(t, "Envoy is back", func() error { return is(m.names(), firstView) })
	s.id, s.key = credential.GenerateAPIKey()
	cp.set("rev-2", s.view(t, "orders")...)
	eventually(t, "rev-2 is decided by", func() error { return is(m.reason("orders", s.key), "allowed") })
	for range 2 {
		m.die(t)
		eventually(t, "Envoy is back", func() error { return is(m.names(), firstView) })
	}
	if got := m.reason("orders", s.key); got != "allowed" {
		t.Errorf("after deaths that have nothing to do with it, the key is %s", got)
	}
	eventually(t, "rev-2 is acknowledged", acknowledged(cp, "rev-2"))
}

// Without an earlier revision there is nothing to go back to, but to tell.
func TestFirstRevisionThatEnvoyDiesOf(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.set("rev-1", view(t, "orders")...)
	cp.start()
	m := startMortal(t, cp)
	for range 2 {
		eventually(t, "Envoy takes rev-1", func() error { return is(m.names(), firstView) })
		m.die(t)
	}
	eventually(t, "the control plane is told", func() error {
		return errors.Join(is(nacked(cp, resource.ListenerType), condemned), acknowledged(cp, "")())
	})
	eventually(t, "Envoy lives with it after all", acknowledged(cp, "rev-1"))
	if err := errors.Join(is(m.names(), firstView), is(nacked(cp, resource.ListenerType), "")); err != nil {
		t.Error(err)
	}
}
