package sidecar

import (
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// book is the agent's own account of what its Envoy holds: the delta server
// counts a version as delivered even when Envoy answered with a NACK. It is
// safe for concurrent use.
type book struct {
	log   *slog.Logger
	nacks *prometheus.CounterVec

	mu     sync.Mutex
	stream *bookStream
	types  map[string]*account
	// envoy is the version that Envoy says it is.
	envoy string
	// served says that the present Envoy opened a stream; deaths counts the
	// Envoys before it that had and died.
	served bool
	deaths int
	// streams counts those that were opened.
	streams int
	changed chan struct{}
}

// account is the book of one type.
type account struct {
	// held are the versions that Envoy acknowledged, by name.
	held map[string]string
	// sent are the responses without an answer, by nonce.
	sent map[string]*discoveryv3.DeltaDiscoveryResponse
	// refused are the resources of rejected responses, by name, until another
	// version of theirs is acknowledged.
	refused map[string]refusal
}

// refusal is a version that Envoy did not take, and why.
type refusal struct{ version, reason string }

// versions are versions by name, by type URL.
type versions map[string]map[string]string

// standing is how Envoy stands towards some versions.
type standing int

const (
	// away: Envoy is not connected.
	away standing = iota
	// waiting: it was not told, or has not answered.
	waiting
	// refused: it rejected one of them.
	refused
	// settled: it holds all of them.
	settled
)

func newBook(log *slog.Logger, nacks *prometheus.CounterVec) *book {
	return &book{log: log, nacks: nacks, changed: make(chan struct{})}
}

// open begins the account of a new stream, which replaces any other. Before a
// request is entered, amend may change it; end is called when the stream shall
// end.
func (b *book) open(amend func(*discoveryv3.DeltaDiscoveryRequest), end func()) *bookStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream != nil {
		b.stream.end()
	}
	b.stream = &bookStream{book: b, amend: amend, end: end}
	b.types = map[string]*account{}
	b.served = true
	b.streams++
	b.notify()
	return b.stream
}

// died enters the death of an Envoy. One that had not come to open a stream
// did not die of what it was sent.
func (b *book) died() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.served {
		b.served = false
		b.deaths++
		b.notify()
	}
}

// deathCount returns how many Envoys died so far.
func (b *book) deathCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.deaths
}

// streamCount tells one Envoy, and one stream of it, from those before.
func (b *book) streamCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.streams
}

// notify wakes those that watch. The caller holds the lock.
func (b *book) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// touch wakes those that watch, for a change elsewhere that concerns them.
func (b *book) touch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notify()
}

// watch returns a channel that is closed at the next change.
func (b *book) watch() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// connected reports whether Envoy has a stream open, and the version that it
// said it is.
func (b *book) connected() (version string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.envoy, b.stream != nil
}

// restart ends the stream. Envoy comes back at once, says what it really
// holds, and is sent the rest again.
func (b *book) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream != nil {
		b.stream.end()
		b.stream, b.types = nil, nil
		b.notify()
	}
}

// refusals returns the versions that Envoy was sent in responses that it
// rejected.
func (b *book) refusals() versions {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := versions{}
	for typeURL, a := range b.types {
		for name, r := range a.refused {
			if all[typeURL] == nil {
				all[typeURL] = map[string]string{}
			}
			all[typeURL][name] = r.version
		}
	}
	return all
}

// standing tells how Envoy stands towards some versions.
func (b *book) standing(want versions) standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream == nil {
		return away
	}
	result := settled
	for typeURL, names := range want {
		result = min(result, b.types[typeURL].standing(names))
	}
	return result
}

func (a *account) standing(want map[string]string) standing {
	if a == nil {
		return waiting
	}
	result := settled
	for name, version := range want {
		switch {
		case a.refused[name].version == version:
			return refused
		case a.held[name] != version:
			result = waiting
		}
	}
	return result
}

// statuses describes the types in want, and the digest of what Envoy holds of
// each in the control plane's own versions.
func (b *book) statuses(want versions) []*chancerypb.TypeStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var statuses []*chancerypb.TypeStatus
	for typeURL, names := range want {
		if a := b.types[typeURL]; a != nil {
			statuses = append(statuses, a.status(typeURL, names))
		}
	}
	return statuses
}

func (a *account) status(typeURL string, want map[string]string) *chancerypb.TypeStatus {
	status := &chancerypb.TypeStatus{TypeUrl: typeURL, State: chancerypb.TypeStatus_ACKED}
	origins := make(map[string]string, len(a.held))
	for name, version := range a.held {
		origins[name] = origin(version)
	}
	status.Digest = xds.DigestOf(origins).String()
	reasons := map[string]struct{}{}
	for name, r := range a.refused {
		if want[name] == r.version {
			status.Rejected = append(status.Rejected, name)
			reasons[r.reason] = struct{}{}
		}
	}
	switch {
	case len(status.Rejected) > 0:
		status.State = chancerypb.TypeStatus_NACKED
		for reason := range reasons {
			status.Error = strings.TrimSpace(status.Error + "\n" + reason)
		}
	case len(a.sent) > 0 || a.standing(want) != settled:
		status.State = chancerypb.TypeStatus_PENDING
	}
	return status
}

// bookStream is one stream's pen. It implements xds.Observer.
type bookStream struct {
	book  *book
	amend func(*discoveryv3.DeltaDiscoveryRequest)
	end   func()
}

var _ xds.Observer = (*bookStream)(nil)

// close ends the stream's account.
func (s *bookStream) close() {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream == s {
		b.stream, b.types = nil, nil
		b.notify()
	}
}

// Requested implements xds.Observer.
func (s *bookStream) Requested(req *discoveryv3.DeltaDiscoveryRequest) error {
	s.amend(req)
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream != s {
		return nil
	}
	if v := req.GetNode().GetUserAgentBuildVersion().GetVersion(); v != nil {
		b.envoy = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
		if err := CheckEnvoyVersion(b.envoy); err != nil {
			b.log.Error("this Envoy would not have been started", "err", err)
		}
	}
	a := b.types[req.GetTypeUrl()]
	if a == nil {
		a = &account{
			held:    maps.Clone(req.GetInitialResourceVersions()),
			sent:    map[string]*discoveryv3.DeltaDiscoveryResponse{},
			refused: map[string]refusal{},
		}
		if a.held == nil {
			a.held = map[string]string{}
		}
		b.types[req.GetTypeUrl()] = a
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		delete(a.held, name)
		delete(a.refused, name)
	}
	b.answered(a, req)
	b.notify()
	return nil
}

// Responding implements xds.Observer.
func (s *bookStream) Responding(resp *discoveryv3.DeltaDiscoveryResponse) {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.types[resp.GetTypeUrl()]; b.stream == s && a != nil {
		a.sent[resp.GetNonce()] = resp
		b.notify()
	}
}

// answered enters an ACK or a NACK.
func (b *book) answered(a *account, req *discoveryv3.DeltaDiscoveryRequest) {
	resp := a.sent[req.GetResponseNonce()]
	if resp == nil {
		return
	}
	delete(a.sent, req.GetResponseNonce())
	if req.GetErrorDetail() == nil {
		for _, r := range resp.GetResources() {
			a.held[r.GetName()] = r.GetVersion()
			delete(a.refused, r.GetName())
		}
		for _, name := range resp.GetRemovedResources() {
			delete(a.held, name)
			delete(a.refused, name)
		}
		return
	}
	reason := req.GetErrorDetail().GetMessage()
	names := make([]string, 0, len(resp.GetResources()))
	for _, r := range resp.GetResources() {
		a.refused[r.GetName()] = refusal{r.GetVersion(), reason}
		names = append(names, r.GetName())
	}
	b.nacks.WithLabelValues(req.GetTypeUrl()).Inc()
	b.log.Error("envoy rejected resources", "type_url", req.GetTypeUrl(), "resources", names, "err", reason)
}
