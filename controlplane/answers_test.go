package controlplane_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// What agents answer for themselves is shown beside what they report of Envoy.
func TestProxiesShowWhatAgentsAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	type states map[string]controlplane.State
	expect := func(when string, want states) {
		t.Helper()
		r.until(when, func() bool {
			got := states{}
			for _, p := range r.proxies() {
				for _, s := range p.Types {
					got[s.TypeURL] = s.State
				}
			}
			return cmp.Equal(got, want)
		})
	}
	c := r.open(orders)
	c.Subscribe(policyType, "*")
	policy := c.Next()
	expect("it is sent", states{policyType: controlplane.StatePending})
	c.ACK(policy)
	expect("it is acknowledged", states{policyType: controlplane.StateACKed})
	r.report(orders, &chancerypb.ReportRequest{Types: []*chancerypb.TypeStatus{
		{TypeUrl: policyType, State: chancerypb.TypeStatus_NACKED},
	}})
	expect("reports do not count", states{policyType: controlplane.StateACKed})
	c.Subscribe(passportKeysType, "public")
	c.NACK(c.Next(), "no such key")
	expect("keys are rejected", states{policyType: controlplane.StateACKed, passportKeysType: controlplane.StateNACKed})
	p := r.proxies()[0].Types[0]
	if want := (controlplane.TypeStatus{
		TypeURL: passportKeysType, State: controlplane.StateNACKed, Error: "no such key", Rejected: []string{"public"},
	}); !cmp.Equal(p, want) {
		t.Errorf("keys are shown as %+v, want %+v", p, want)
	}
	c.Subscribe(passportKeysType) // is answered, with nothing
	c.NextACK()
	revisionOf(t, c)
	expect("that takes nothing back", states{policyType: controlplane.StateACKed, passportKeysType: controlplane.StateNACKed})

	jwk, _ := newPassportKey(t)
	if _, err := r.enroll(gateway, jwk); err != nil {
		t.Fatal(err)
	}
	c.NextACK()
	expect("the next ACK does", states{policyType: controlplane.StateACKed, passportKeysType: controlplane.StateACKed})
}

func TestProxiesShowAStalePolicy(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first := r.accept(orders)
	c := r.open(orders)
	h := held{}
	subscribeAll(c, h)
	r.policyIs(controlplane.StateACKed)
	c.Close()

	r.restart(nil)
	c = r.open(orders)
	c.Resume(policyType, maps.Clone(h[policyType]), "*")
	c.NextACK() // nothing: it is held
	revisionOf(t, c)
	r.policyIs(controlplane.StateACKed)
	tester := r.open(orders)
	revisionOf(t, tester)
	r.write("orders", strings.Replace(ordersYAML, `"true"`, `"false"`, 1))
	r.revised(orders, first)
	c.Next() // is not answered
	r.policyIs(controlplane.StatePending)
	late := r.open(orders)
	late.Subscribe(policyType, "*")
	late.NextACK()
	revisionOf(t, late)
	r.policyIs(controlplane.StateStale)
}

// policyIs waits until the only proxy stands so with its policy.
func (r *rig) policyIs(want controlplane.State) {
	r.t.Helper()
	r.until("the policy is "+string(want), func() bool {
		for _, p := range r.proxies() {
			for _, s := range p.Types {
				if s.TypeURL == policyType {
					return s.State == want
				}
			}
		}
		return false
	})
}
