package ca_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// A thief who renews as fast as can be has a handful of certificates, not any
// number, however the renewals descend from each other.
func TestLineageIsBounded(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(first, last ca.Certificate) ca.Certificate{
		"one after the other": func(_, last ca.Certificate) ca.Certificate { return last },
		"all from one":        func(first, _ ca.Certificate) ca.Certificate { return first },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				authority := open(t, config(t))
				_, first := sign(t, authority, request(t, orders))
				last, signed := first, 1
				for range 100 {
					_, cert, err := authority.Sign(renewal(t, next(first, last)))
					if err == nil {
						last, signed = cert, signed+1
					} else if !errors.Is(err, ca.ErrTooMany) {
						t.Fatal(err)
					}
				}
				if signed != 9 {
					t.Errorf("%d certificates were signed", signed)
				}
				sign(t, authority, request(t, orders)) // another agent
				time.Sleep(31 * time.Minute)           // half of their life
				sign(t, authority, renewal(t, last))
			})
		})
	}
}

// The control plane asks at each start.
func TestControlPlaneIsNotBounded(t *testing.T) {
	t.Parallel()
	authority := open(t, config(t))
	_, cert := sign(t, authority, request(t, identity.ControlPlane))
	for range 20 {
		_, cert = sign(t, authority, renewal(t, cert))
	}
}

// An agent is never refused: not when it renews at half of its life, with the
// shortest lives, nor when authorities are tainted one after the other, nor when
// answers are lost.
func TestAgentIsNeverRefused(t *testing.T) {
	t.Parallel()
	for name, lives := range map[string]struct{ leaf, authority time.Duration }{
		"usual":  {24 * time.Hour, 720 * time.Hour},
		"short":  {10 * time.Second, time.Minute},
		"capped": {24 * time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				authority := open(t, config(t))
				authority.SetLifetimes(ca.Lifetimes{Authority: lives.authority})
				req := request(t, orders)
				req.TTL = lives.leaf
				for range 40 {
					_, cert := sign(t, authority, req)
					for range 20 { // lost
						sign(t, authority, req)
					}
					old := authority.Authorities()
					next, err := authority.Prepare(false)
					must(t, err)
					must(t, authority.Activate(next.ID))
					must(t, authority.Taint(old[len(old)-1].ID))
					for range 2 {
						ttl := req.TTL
						req = renewal(t, cert)
						req.TTL = ttl
						_, cert = sign(t, authority, req)
						time.Sleep(time.Until(cert.Expires) * 45 / 100)
					}
					req = renewal(t, cert)
					req.TTL = lives.leaf
					must(t, authority.Expire())
				}
			})
		})
	}
}

// Whoever repeats a request gets what it got before, so long as that is as good
// as new.
func TestRepeatedRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := open(t, config(t))
		_, parent := sign(t, authority, request(t, orders))
		req := renewal(t, parent)
		was, first := sign(t, authority, req)
		for range 20 {
			if chain, again := sign(t, authority, req); again != first || !chain[0].Equal(was[0]) || len(chain) != len(was) {
				t.Fatalf("certificate %s, then %s", first.Serial, again.Serial)
			}
		}
		if other, forked := authority.Fork(first); forked {
			t.Errorf("a repetition is taken for a theft: %s", other.Serial)
		}
		if _, other := sign(t, authority, renewal(t, parent)); other.Serial == first.Serial {
			t.Error("another key gets the same certificate")
		}
		time.Sleep(31 * time.Minute)
		if _, late := sign(t, authority, req); late.Serial == first.Serial {
			t.Error("a certificate past half of its life is given again")
		}
		_, err := authority.RevokeSerial(parent.Serial, "")
		must(t, err)
		if _, _, err := authority.Sign(req); !errors.Is(err, ca.ErrRevoked) {
			t.Errorf("repeated after a revocation: %v", err)
		}
	})
}

// A certificate that was renewed with two keys was copied.
func TestFork(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	authority := open(t, cfg)
	_, parent := sign(t, authority, request(t, orders))
	_, one := sign(t, authority, renewal(t, parent))
	if _, forked := authority.Fork(one); forked {
		t.Error("one renewal is taken for two")
	}
	must(t, authority.Close())
	authority = open(t, cfg) // it is in the ledger
	_, two := sign(t, authority, renewal(t, parent))
	for _, c := range []ca.Certificate{one, two} {
		if other, forked := authority.Fork(c); !forked || other.Serial == c.Serial || other.Parent != parent.Serial {
			t.Errorf("Fork = %v, %v", other, forked)
		}
	}
	_, next := sign(t, authority, renewal(t, two))
	if _, forked := authority.Fork(next); forked {
		t.Error("its child is taken for a second one")
	}
}

// A proof that is shown again goes on with the lineage that it began.
func TestLineageOfAProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := open(t, config(t))
		req := request(t, orders)
		req.Lineage = "proof"
		_, first := sign(t, authority, req)
		if first.Lineage != "proof" || first.Parent != "" {
			t.Errorf("lineage %q, parent %q", first.Lineage, first.Parent)
		}
		time.Sleep(45 * time.Minute)
		sign(t, authority, renewal(t, first))
		sign(t, authority, req)
		if live := authority.Live(); len(live) != 1 {
			t.Errorf("live are %v", live)
		}
		revoked, err := authority.RevokeSerial(first.Serial, "")
		must(t, err)
		if len(revoked) != 3 {
			t.Errorf("revoked are %v", revoked)
		}
	})
}

// A proof is good for a few certificates, however slowly they are asked for.
func TestProofIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := open(t, config(t))
		req := request(t, orders)
		req.Lineage, req.TTL = "proof", 24*time.Hour
		for range 8 {
			sign(t, authority, req)
			req.Key = newKey(t).Public() // it is not a repetition
			time.Sleep(2 * time.Hour)
		}
		if _, _, err := authority.Sign(req); !errors.Is(err, ca.ErrTooMany) {
			t.Errorf("the ninth: %v", err)
		}
	})
}
