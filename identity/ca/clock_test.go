package ca_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// A clock that is two days ahead for a while takes back nothing: not in the
// process that it jumps in, and not in one that starts meanwhile.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var set time.Duration
		var log bytes.Buffer
		cfg := config(t)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		cfg.Now = func() time.Time { return time.Now().Add(set) }
		authority := open(t, cfg)
		authority.SetLifetimes(ca.Lifetimes{Authority: 24 * time.Hour})
		old := authority.Authorities()[0].ID
		_, revoked := sign(t, authority, request(t, orders))
		_, good := sign(t, authority, request(t, public))
		_, err := authority.RevokeSerial(revoked.Serial, "")
		must(t, err)
		next, err := authority.Prepare(false)
		must(t, err)
		must(t, authority.Expire())
		was := authority.Trust()

		away := func(how string) {
			t.Helper()
			time.Sleep(time.Minute)
			must(t, authority.Expire())
			if authority.Trust().GetSequence() != was.GetSequence() || len(authority.Authorities()) != 2 {
				t.Errorf("%s: trust is %v, was %v; authorities are %v", how, authority.Trust(), was, authority.Authorities())
			}
		}
		set = 48 * time.Hour
		away("the clock jumps")
		if jump := authority.ClockJump(); jump != 48*time.Hour || strings.Count(log.String(), "the clock is not where it should be") != 1 {
			t.Errorf("jump is %v, log: %s", jump, &log)
		}
		must(t, authority.Close())
		authority = open(t, cfg)
		away("a start with the clock ahead")
		if jump := authority.ClockJump(); jump < 47*time.Hour {
			t.Errorf("jump is %v at a start", jump)
		}
		set = 0
		away("the clock comes back")
		must(t, authority.Close())
		authority = open(t, cfg)
		away("a start with the clock right")
		if jump := authority.ClockJump(); jump != 0 {
			t.Errorf("jump is %v", jump)
		}
		assertRevoked(t, authority, revoked.Serial)
		if _, ok := authority.Find(good.Serial); !ok {
			t.Error("a good certificate is forgotten")
		}
		for _, id := range []string{old, next.ID} {
			if !hasAuthority(authority, id) {
				t.Errorf("authority %s is forgotten", id)
			}
		}
	})
}

func hasAuthority(authority *ca.CA, id string) bool {
	for _, a := range authority.Trust().GetAuthorities() {
		if a.GetId() == id {
			return true
		}
	}
	return false
}

// A control plane that was away for days forgets what ended, in an hour.
func TestLongAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		authority := open(t, cfg)
		_, revoked := sign(t, authority, request(t, orders))
		_, err := authority.RevokeSerial(revoked.Serial, "")
		must(t, err)
		must(t, authority.Close())
		time.Sleep(72 * time.Hour)
		authority = open(t, cfg)
		for _, left := range []int{1, 0} {
			if n := len(authority.Trust().GetRevoked()); n != left {
				t.Errorf("%d are revoked, want %d", n, left)
			}
			time.Sleep(time.Hour)
			must(t, authority.Expire())
		}
		if jump := authority.ClockJump(); jump != 0 {
			t.Errorf("jump is %v", jump)
		}
	})
}
