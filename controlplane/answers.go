package controlplane

import (
	"slices"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// ownTypes are those that agents answer for themselves: Envoy, of which they
// report, never sees them.
var ownTypes = []string{policyType, providerType, accountsType, passportKeysType, trustType, revocationsType}

// responded notes what a stream of p was sent, of which an empty response is
// only news to who said nothing yet.
func (ps *proxies) responded(p *proxy, typeURL, digest string, empty bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.own[typeURL] == nil || !empty {
		p.own[typeURL] = &chancerypb.TypeStatus{TypeUrl: typeURL, State: chancerypb.TypeStatus_PENDING, Digest: digest}
	}
}

// acknowledged notes an ACK. One of an empty response takes no rejection back.
func (ps *proxies) acknowledged(p *proxy, typeURL string, empty bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if t := p.own[typeURL]; t != nil && (!empty || t.GetState() == chancerypb.TypeStatus_PENDING) {
		t.State, t.Error, t.Rejected = chancerypb.TypeStatus_ACKED, "", nil
	}
}

// rejected notes a NACK.
func (ps *proxies) rejected(p *proxy, r rejection) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if t := p.own[r.TypeURL]; t != nil {
		t.State, t.Error, t.Rejected = chancerypb.TypeStatus_NACKED, r.Text, r.Names
	}
}

// types returns how the proxy stands with each type, as its agent reported of
// Envoy and answered for itself. The caller holds the book's lock.
func (p *proxy) types() []*chancerypb.TypeStatus {
	types := slices.DeleteFunc(slices.Clone(p.report.GetTypes()), func(t *chancerypb.TypeStatus) bool {
		return slices.Contains(ownTypes, t.GetTypeUrl())
	})
	for _, t := range p.own {
		types = append(types, t)
	}
	return types
}

// digest is of what the stream is sent of a type of its view; empty for what
// views share.
func (str *stream) digest(typeURL string) string {
	if c := str.sets[typeURL]; c != nil {
		return xds.DigestOf(c.Versions()).String()
	}
	return ""
}
