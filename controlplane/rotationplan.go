package controlplane

import (
	"cmp"
	"fmt"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
)

// Step is one of an authority's rotation.
type Step string

// The steps, in their order.
const (
	// StepPrepare makes the next authority, which everybody trusts from then on.
	StepPrepare Step = "prepare"
	// StepActivate has it sign. It waits until all proxies trust it.
	StepActivate Step = "activate"
	// StepTaint has everybody renew who has a certificate of the old one. It
	// waits as the step before does.
	StepTaint Step = "taint"
	// StepRevoke ends the trust in it. It waits until nobody uses it.
	StepRevoke Step = "revoke"
)

// StepStatus is a step of the rotation that is next for an authority.
type StepStatus struct {
	Step Step `json:"step"`
	// Authority is empty when it is yet to be made.
	Authority string `json:"authority,omitempty"`
	// Due is when the control plane takes the step of its own accord, and Forced
	// when it does so whoever it would have to wait for; zero for never.
	Due    time.Time `json:"due"`
	Forced time.Time `json:"forced,omitzero"`
	// Ends is when the authority does that the step replaces or ends.
	Ends time.Time `json:"ends"`
	// Error is why the control plane could not take the step when it last tried,
	// and Failing since when it cannot.
	Error   string    `json:"error,omitempty"`
	Failing time.Time `json:"failing,omitzero"`
	// Waiting are the proxies that are not ready for it.
	Waiting []WaitingProxy `json:"waiting,omitempty"`
}

// WaitingProxy is a proxy that something waits for.
type WaitingProxy struct {
	// Name is "gateway/<name>" or "service/<name>"; Instance is empty when it
	// has not connected since the control plane started.
	Name     string `json:"name"`
	Instance string `json:"instance,omitempty"`
	// Serial is the newest certificate of it, and Expires when that ends: a
	// step waits no longer than that.
	Serial  string    `json:"serial,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Away says that it is not connected: it may be gone for good.
	Away bool `json:"away,omitempty"`
	// Reason, since when.
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// String says it all in one line.
func (p WaitingProxy) String() string {
	name := p.Name
	if p.Instance != "" {
		name += " " + p.Instance
	}
	certificate := cmp.Or(p.Serial, "unknown")
	if !p.Expires.IsZero() {
		certificate += ", ends " + p.Expires.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s (certificate %s) %s since %s", name, certificate, p.Reason, p.Since.Format(time.RFC3339))
}

// WaitingError says that a step has to wait. The error is for operators, who
// can force it.
type WaitingError struct{ Step StepStatus }

func (e *WaitingError) Error() string {
	verb := "are"
	if len(e.Step.Waiting) == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%s %s: %s %s not ready for it", e.Step.Step, e.Step.Authority, proxyCount(len(e.Step.Waiting)), verb)
}

// proxyCount is "1 proxy" or "2 proxies".
func proxyCount(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}

// plan returns the next step of every authority that has one.
func (r *rotation) plan(a authorities) []StepStatus {
	var active, prepared ca.Authority
	all := a.Authorities()
	for _, authority := range all {
		switch authority.State {
		case ca.Active:
			active = authority
		case ca.Prepared:
			prepared = authority
		}
	}
	steps := []StepStatus{r.replace(a, active, prepared)}
	for _, authority := range all {
		step := StepStatus{Authority: authority.ID, Due: halfLife(authority), Ends: authority.NotAfter}
		switch authority.State {
		case ca.Old:
			step.Step, step.Waiting = StepTaint, r.behind(a, active)
		case ca.Tainted:
			step.Step, step.Waiting = StepRevoke, r.using(a, authority.ID)
		default:
			continue
		}
		steps = append(steps, step)
	}
	return steps
}

// replace returns the next step towards another active authority. Without an
// active one, which must have ended, everything is due.
func (r *rotation) replace(a authorities, active, next ca.Authority) StepStatus {
	if next.ID == "" {
		return StepStatus{Step: StepPrepare, Due: halfLife(active), Ends: active.NotAfter}
	}
	return StepStatus{
		Step:      StepActivate,
		Authority: next.ID,
		Due:       halfLife(active),
		Forced:    forced(active, next),
		Ends:      active.NotAfter,
		Waiting:   r.behind(a, next),
	}
}

// halfLife is when the rotation of an authority begins.
func halfLife(a ca.Authority) time.Time { return a.NotAfter.Add(-a.Lifetime() / 2) }

// forced is when the active authority is replaced whoever is not ready: at 5/6
// of its life. One that was prepared late has a twelfth of it to become known,
// unless the active one ends.
func forced(active, next ca.Authority) time.Time {
	at := active.NotAfter.Add(-active.Lifetime() / 6)
	if known := next.Since.Add(active.Lifetime() / 12); known.After(at) {
		at = known
	}
	if at.After(active.NotAfter) {
		at = active.NotAfter
	}
	return at
}

// behind returns who has a good certificate and has not told that it took a
// trust that shows the authority in its state. Who told so and went away has it
// on disk.
func (r *rotation) behind(a authorities, authority ca.Authority) []WaitingProxy {
	// Not every step changes the trust.
	sequence := min(authority.Sequence, a.Trust().GetSequence())
	return r.waiting(a, func(c ca.Certificate, p *proxy) (string, time.Time) {
		switch {
		case c.ID.Role == "control-plane":
			return "", time.Time{} // where trust comes from
		case p == nil:
			return "has not connected to this control plane, and has its certificate", c.Issued
		case p.report.GetTrustSequence() >= sequence:
			return "", time.Time{}
		case p.streams == 0:
			return "is away", p.changed
		}
		return fmt.Sprintf("has trust %d and not yet %d", p.report.GetTrustSequence(), sequence), authority.Since
	})
}

// using returns who uses a certificate of an authority, or did when it was last
// heard of, or may have connections open that began with one: what comes on them
// would be refused.
func (r *rotation) using(a authorities, authority string) []WaitingProxy {
	return r.waiting(a, func(c ca.Certificate, p *proxy) (string, time.Time) {
		switch {
		case c.Authority == authority:
			return "has a certificate of it", c.Issued
		case p != nil && p.uses(authority, r.now()):
			return "uses a certificate of it", p.reported
		case p != nil && p.report.GetSvidAuthority() != "" && r.now().Before(p.moved.Add(time.Duration(r.lastRequest.Load()))):
			return "may have connections that began with a certificate of it", p.moved
		}
		return "", time.Time{}
	})
}

// uses reports whether the proxy said that it uses a certificate of an
// authority, which has not ended.
func (p *proxy) uses(authority string, now time.Time) bool {
	return p.report.GetSvidAuthority() == authority && p.report.GetSvidExpires().AsTime().After(now)
}

// waiting returns those who have a good certificate and a reason why not, in the
// order of their certificates. The proxy is nil where none has connected.
func (r *rotation) waiting(a authorities, whyNot func(ca.Certificate, *proxy) (string, time.Time)) []WaitingProxy {
	live := a.Live()
	r.proxies.mu.Lock()
	defer r.proxies.mu.Unlock()
	var waiting []WaitingProxy
	for _, c := range live {
		p := r.proxies.byID[c.ID][c.Lineage]
		reason, since := whyNot(c, p)
		if reason == "" {
			continue
		}
		w := WaitingProxy{
			Name: c.ID.String(), Serial: c.Serial, Expires: c.Expires, Away: p == nil || p.streams == 0,
			Reason: reason, Since: since,
		}
		if p != nil {
			w.Instance = p.instance
		}
		waiting = append(waiting, w)
	}
	return waiting
}
