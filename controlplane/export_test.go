package controlplane

import (
	"encoding/json"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Parts that are tested on their own.
var (
	Debounce = debounce
	Mentions = mentions
)

// Their constants.
const (
	PushLead        = pushLead
	PushGap         = pushGap
	MaxPassportKeys = maxPassportKeys
)

// PerAgent is how many connections one agent may have.
var PerAgent = defaultBounds().perAgent

// PassportKeys are passportKeys.
type PassportKeys struct{ *passportKeys }

// OpenPassportKeys is openPassportKeys.
func OpenPassportKeys(path string) (PassportKeys, error) {
	pk, err := openPassportKeys(path, slog.New(slog.DiscardHandler))
	return PassportKeys{pk}, err
}

// Use, Endorse and Expire are use, endorse and expire.
func (pk PassportKeys) Use(trustDomain string, gateways []string) {
	m := map[string]scope{}
	for _, g := range gateways {
		m[g] = scope{}
	}
	pk.use(trustDomain, m, ScopeOverlap)
}

func (pk PassportKeys) Endorse(gateway string, jwk []byte) error {
	return pk.endorse(endorser{gateway: gateway, lineage: string(jwk), until: time.Now().Add(24 * time.Hour)}, jwk)
}

func (pk PassportKeys) Expire() { pk.expire() }

// Count returns how many keys verifiers are given.
func (pk PassportKeys) Count(gateway string) int {
	var m chancerypb.PassportKeys
	if err := pk.collection.Resources()[gateway].Decode(&m); err != nil {
		panic(err)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(m.GetJwks(), &set); err != nil {
		panic(err)
	}
	return len(set.Keys)
}

// Tidy does once what the server does every now and then.
func Tidy(s *Server) { s.tidy() }

// Connect is a proxy's stream that begins, and then ends.
func Connect(s *Server, id identity.ID, lineage string) (disconnect func()) {
	p := s.proxies.connect(id, lineage, lineage, nil)
	return func() { s.proxies.disconnect(p, nil) }
}

// Proxies returns how each proxy stands.
func Proxies(s *Server) []ProxyStatus { return s.proxyStatus() }

// Accounts returns how many resources with accounts are served.
func Accounts(s *Server) int { return len(s.accounts.Versions()) }

// Authority returns the certificate authority; nil if there is none yet.
func Authority(s *Server) *ca.CA {
	authority, _ := s.authority()
	return authority
}

// SVID returns the control plane's own certificate.
func SVID(s *Server) *identity.SVID { return s.self.SVID() }

// HoldTrust keeps a change of trust from taking effect on connections.
func HoldTrust(s *Server) (release func()) {
	s.trusting.Lock()
	return s.trusting.Unlock
}

// Serves reports whether there is a view of id.
func Serves(s *Server, id identity.ID) bool { return s.views.has(id) }

// AwaitProxies has answers to revocations wait for proxies for so long, until
// undone.
func AwaitProxies(s *Server, d time.Duration) (undo func()) {
	s.revocationWait = d
	return func() { s.revocationWait = revocationWait }
}

// Bounds are bounds.
type Bounds struct{ *bounds }

// Bound changes what a server takes on, before anybody connects.
func Bound(s *Server, change func(*Bounds)) {
	b := s.door.bounds
	change(&Bounds{&b})
	s.door.bound(b)
}

func (b *Bounds) Slow(d time.Duration) { b.slow = d }

func (b *Bounds) Handshakes(perSecond, burst int) {
	b.handshakes = limit{rate.Limit(perSecond), burst}
}

func (b *Bounds) Connections(n int) { b.connections = n }

func (b *Bounds) PerWorkload(n int) { b.perWorkload = n }

func (b *Bounds) PerAgent(n int) { b.perAgent = n }

func (b *Bounds) ArrivingPerAddress(n int) { b.arrivingPerAddress = n }

func (b *Bounds) PerAddress(n int) { b.perAddress = n }
