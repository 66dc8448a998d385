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
	// maxText bounds what a proxy says of one type, maxRejected the names in
	// it, maxName any name, maxTypes the types, and maxProblems its problems.
	maxText     = 8 << 10
	maxRejected = 1000
	maxName     = 256
	maxTypes    = 20
	maxProblems = 20
)

// proxies is the book of the Envoys in the mesh: who is there, and how each
// stands with what it was sent. It is kept because go-control-plane counts a
// version as delivered also when it was rejected.
type proxies struct {
	mu sync.Mutex
	// byID has those of a workload by the lineage of their certificates.
	byID map[identity.ID]map[string]*proxy
	// news is closed with the next report, or when a proxy goes.
	news chan struct{}
}

// proxy is one line of the book; the book's lock guards it, but for what names
// it.
type proxy struct {
	id       identity.ID
	lineage  string
	instance string

	streams int
	// changed is when the proxy last came or went.
	changed time.Time
	report  *chancerypb.ReportRequest
	// reported is when the report came, and moved when one first told of the
	// authority that the proxy's certificate is of.
	reported, moved time.Time
	// seats are the connections that its streams are on.
	seats seats
	// unheard are the types of which Envoy's last NACK was not acted on.
	unheard map[string]bool
	// own are the agent's answers on its stream, by type.
	own map[string]*chancerypb.TypeStatus
}

func newProxies() *proxies {
	return &proxies{byID: map[identity.ID]map[string]*proxy{}, news: make(chan struct{})}
}

// connect notes that a proxy opened a stream. What it calls itself is for
// people to read.
func (ps *proxies) connect(id identity.ID, lineage, instance string, on *connection) *proxy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	instance = bounded(instance, maxName)
	p := ps.entry(id, lineage, instance)
	if p.streams == 0 && p.instance != instance { // it was given another name
		delete(ps.byID[id], lineage)
		p = ps.entry(id, lineage, instance)
	}
	p.streams++
	p.changed = time.Now()
	p.seats.take(on)
	return p
}

// disconnect notes that a stream of p on a connection ended; p may be nil.
func (ps *proxies) disconnect(p *proxy, on *connection) {
	if p == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.streams--
	p.changed = time.Now()
	p.seats.leave(on)
	p.settle()
	ps.announce()
}

// note takes a report, and returns whose it is and the one before, or nil.
func (ps *proxies) note(who caller, report *chancerypb.ReportRequest) (p *proxy, before *chancerypb.ReportRequest) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p = ps.entry(who.ID, who.certificate.Lineage, report.GetInstance())
	before, p.report = p.report, report
	p.reported = time.Now()
	if before.GetSvidAuthority() != report.GetSvidAuthority() {
		p.moved = p.reported
	}
	p.seats.tell(who.connection, report.GetTrustSequence())
	p.settle()
	ps.announce()
	return p, before
}

// announce tells who waits for reports that there is one, or that one will not
// come. The caller holds the lock.
func (ps *proxies) announce() {
	close(ps.news)
	ps.news = make(chan struct{})
}

// changed returns a channel that is closed with the next report, or when a
// proxy goes.
func (ps *proxies) changed() <-chan struct{} {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.news
}

// entry returns the line of a proxy.
func (ps *proxies) entry(id identity.ID, lineage, instance string) *proxy {
	if known := ps.byID[id][lineage]; known != nil {
		return known
	}
	if ps.byID[id] == nil {
		ps.byID[id] = map[string]*proxy{}
	}
	p := &proxy{id: id, lineage: lineage, instance: instance, changed: time.Now(), own: map[string]*chancerypb.TypeStatus{}, seats: seats{}, unheard: map[string]bool{}}
	ps.byID[id][lineage] = p
	return p
}

// forget drops proxies that went away long ago, and whose certificates have
// ended: as long as they have not, the rotation counts on what they told.
func (ps *proxies) forget(live map[string]bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, instances := range ps.byID {
		for lineage, p := range instances {
			if p.gone() && !live[lineage] {
				delete(instances, lineage)
			}
		}
	}
}

// isUnheard and setUnheard keep whether Envoy's last NACK of a type was not acted
// on.
func (ps *proxies) isUnheard(p *proxy, typeURL string) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return p.unheard[typeURL]
}

func (ps *proxies) setUnheard(p *proxy, typeURL string, unheard bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.unheard[typeURL] = unheard
}

// gone reports whether the proxy is not worth showing any more.
func (p *proxy) gone() bool { return p.streams == 0 && time.Since(p.changed) > forgetAfter }

// status tells of each proxy, sorted by name and instance; latest returns the
// latest generation of a workload, or nil.
func (ps *proxies) status(latest func(identity.ID) *generation) []ProxyStatus {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []ProxyStatus
	for id, instances := range ps.byID {
		g := latest(id)
		for _, p := range instances {
			if !p.gone() {
				out = append(out, p.status(g))
			}
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
		Lineage:        p.lineage,
		Trust:          p.report.GetTrustSequence(),
		Revocations:    p.report.GetRevocationsSequence(),
		Certificate:    certificateStatus(p.report),
		ClockAhead:     p.clockAhead().Seconds(),
		Problems:       slices.Concat(p.seats.problems(), p.report.GetProblems()),
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

// clockAhead is how far the agent's clock is ahead of this one, as far as its
// last report can tell, which was under way for a while.
func (p *proxy) clockAhead() time.Duration {
	if p.report.GetNow() == nil {
		return 0
	}
	return p.report.GetNow().AsTime().Sub(p.reported)
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
		&report.SvidSerial, &report.SvidAuthority,
	} {
		*text = bounded(*text, maxName)
	}
	report.Problems = report.Problems[:min(len(report.Problems), maxProblems)]
	for i := range report.Problems {
		report.Problems[i] = bounded(report.Problems[i], maxName)
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
