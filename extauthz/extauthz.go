// Package extauthz is the policy decision point (PDP): Envoy's external
// authorization service.
//
// A [State] holds one policy, a gateway's or a service's, compiled together
// with the keys it needs; a [Server] decides by the state it was last given,
// without I/O and without a lock. At a gateway it verifies the access token,
// evaluates the route's rule and mints a Passport. Beside a service it takes the
// caller from the peer certificate and the user from the Passport, and
// evaluates the service's own rule.
//
// Every doubt is a denial. What the client is told is a status and, with 401, a
// challenge; why is in the log, the metrics and the dynamic metadata.
//
// The package does not know where states come from, and trusts whoever may call
// Check: that must be Envoy alone.
package extauthz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/passport"
)

// Config says what a [Server] runs with.
type Config struct {
	// Logger gets one record per check: denials at level info, what is allowed
	// at level debug. Required.
	Logger *slog.Logger
	// Registerer gets the metrics chancery_checks_total and
	// chancery_check_duration_seconds; nil for none.
	Registerer prometheus.Registerer
	// Signer returns the key that a gateway mints with, nil while it has none.
	// It is called for each request. Required for gateways.
	Signer func() *passport.Signer
	// CacheSize is about how many verified access tokens are remembered.
	// Default 8192.
	CacheSize int
}

// Server implements Envoy's Authorization service, safe for concurrent use.
type Server struct {
	logger  *slog.Logger
	signer  func() *passport.Signer
	cache   *credential.Cache
	metrics *metrics
	state   atomic.Pointer[State]

	certificates certificates
}

var _ authv3.AuthorizationServer = (*Server)(nil)

// New returns a server that denies everything until it has a state.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		return nil, errors.New("ext_authz server needs a logger")
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register ext_authz metrics: %w", err)
	}
	s := &Server{
		logger: c.Logger.With("component", "extauthz"), signer: c.Signer,
		cache: credential.NewCache(cmp.Or(c.CacheSize, 8192)), metrics: m,
	}
	if s.signer == nil {
		s.signer = func() *passport.Signer { return nil }
	}
	return s, nil
}

// SetState makes s the state of all checks that begin from now on. Nil denies
// everything.
func (s *Server) SetState(state *State) { s.state.Store(state) }

// Check implements [authv3.AuthorizationServer]. It never returns an error: what
// cannot be decided is denied.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	begin := time.Now()
	d := s.decide(ctx, req, begin)
	s.metrics.observe(d, time.Since(begin))
	s.log(ctx, d)
	return d.response(), nil
}

// decide turns whatever goes wrong into a denial.
func (s *Server) decide(ctx context.Context, req *authv3.CheckRequest, now time.Time) (d *decision) {
	d = &decision{}
	defer func() {
		if r := recover(); r != nil {
			d.verdict, d.cause = internalError, fmt.Errorf("panic: %v", r)
		}
	}()
	c := check{decision: d, server: s, state: s.state.Load(), now: now}
	d.verdict = c.judge(ctx, req)
	if err := ctx.Err(); err != nil && d.verdict == allowed {
		d.verdict, d.cause = cancelled, err
	}
	return d
}
