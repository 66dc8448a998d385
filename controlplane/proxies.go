package controlplane

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

const (
	// forgetAfter is how long a proxy that went away is still shown.
	forgetAfter = 10 * time.Minute
	// maxInstances bounds the instances that one workload can claim to be.
	maxInstances = 1000
	// maxText bounds what a proxy says of one type, maxRejected the names in
	// it, maxName
	// any name, and maxTypes the types.
	maxText     = 8 << 10
	maxRejected = 1000
	maxName     = 256
	maxTypes    = 20
)

// proxies is the book of the Envoys in the mesh: who is there, and how each
// stands with what it was sent. It is kept because go-control-plane counts a
// version as delivered also when it was rejected.
type proxies struct {
	mu   sync.Mutex
	byID map[identity.ID]map[string]*proxy
}

// proxy is one line of the book; the book's lock guards it, but for what names
// it.
type proxy struct {
	id       identity.ID
	instance string

	streams int
	// changed is when the proxy last came or went.
	changed time.Time
	report  *chancerypb.ReportRequest
	// own are the agent's answers on its stream, by type.
	own map[string]*chancerypb.TypeStatus
}

func newProxies() *proxies { return &proxies{byID: map[identity.ID]map[string]*proxy{}} }

// connect notes that a proxy opened a stream. What it calls itself is for
// people to read.
func (ps *proxies) connect(id identity.ID, instance string) *proxy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.entry(id, bounded(instance, maxName))
	p.streams++
	p.changed = time.Now()
	return p
}

// disconnect notes that a stream of p ended; p may be nil.
func (ps *proxies) disconnect(p *proxy) {
	if p == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.streams--
	p.changed = time.Now()
}

// note takes a report, and returns the one before, or nil.
func (ps *proxies) note(id identity.ID, report *chancerypb.ReportRequest) (before *chancerypb.ReportRequest) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.entry(id, report.GetInstance())
	before, p.report = p.report, report
	return before
}

// entry returns the line of a proxy. A workload that claims too many instances
// gets a line that is not kept.
func (ps *proxies) entry(id identity.ID, instance string) *proxy {
	p := ps.byID[id][instance]
	if p != nil {
		return p
	}
	p = &proxy{id: id, instance: instance, changed: time.Now(), own: map[string]*chancerypb.TypeStatus{}}
	if ps.byID[id] == nil {
		ps.byID[id] = map[string]*proxy{}
	}
	if len(ps.byID[id]) < maxInstances {
		ps.byID[id][instance] = p
	}
	return p
}

// forget drops proxies that went away long ago.
func (ps *proxies) forget() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, instances := range ps.byID {
		for name, p := range instances {
			if p.streams == 0 && time.Since(p.changed) > forgetAfter {
				delete(instances, name)
			}
		}
	}
}

// status tells of each proxy, sorted by name and instance; latest returns the
// latest generation of a workload, or nil.
func (ps *proxies) status(latest func(identity.ID) *generation) []ProxyStatus {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []ProxyStatus
	for id, instances := range ps.byID {
		g := latest(id)
		for _, p := range instances {
			out = append(out, p.status(g))
		}
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance))
	})
	return out
}

func (p *proxy) status(latest *generation) ProxyStatus {
	s := ProxyStatus{
		Name:           p.id.String(),
		Instance:       p.instance,
		Connected:      p.streams > 0,
		Since:          p.changed,
		EnvoyConnected: p.streams > 0 && p.report.GetEnvoyConnected(),
		EnvoyVersion:   p.report.GetEnvoyVersion(),
		AgentVersion:   p.report.GetAgentVersion(),
		Held:           p.report.GetHeldRevision(),
		Acknowledged:   p.report.GetAcknowledgedRevision(),
	}
	if latest != nil {
		s.Latest = latest.revision
	}
	for _, t := range p.types() {
		s.Types = append(s.Types, typeStatus(t, latest))
	}
	slices.SortFunc(s.Types, func(a, b TypeStatus) int { return cmp.Compare(a.TypeURL, b.TypeURL) })
	return s
}

// typeStatus compares what Envoy acknowledged with what there is.
func typeStatus(t *chancerypb.TypeStatus, latest *generation) TypeStatus {
	s := TypeStatus{TypeURL: t.GetTypeUrl(), State: StatePending}
	switch t.GetState() {
	case chancerypb.TypeStatus_ACKED:
		s.State = StateACKed
		if latest != nil && latest.digests[s.TypeURL] != "" && latest.digests[s.TypeURL] != t.GetDigest() {
			s.State = StateStale
		}
	case chancerypb.TypeStatus_NACKED:
		s.State = StateNACKed
		s.Error, s.Rejected = t.GetError(), t.GetRejected()
	}
	return s
}

// trim cuts a report to what is bearable to keep.
func trim(report *chancerypb.ReportRequest) {
	for _, text := range []*string{
		&report.Instance, &report.AcknowledgedRevision, &report.HeldRevision, &report.EnvoyVersion, &report.AgentVersion,
	} {
		*text = bounded(*text, maxName)
	}
	report.Types = report.Types[:min(len(report.Types), maxTypes)]
	for _, t := range report.Types {
		t.TypeUrl, t.Digest = bounded(t.TypeUrl, maxName), bounded(t.Digest, maxName)
		t.Error = bounded(t.Error, maxText)
		t.Rejected = t.Rejected[:min(len(t.Rejected), maxRejected)]
		for i := range t.Rejected {
			t.Rejected[i] = bounded(t.Rejected[i], maxName)
		}
	}
}

// bounded cuts what others say to at most n bytes.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
