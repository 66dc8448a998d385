// Package extauthz is the policy decision point (PDP): Envoy's external
// authorization service.
//
// A [State] holds one policy, a gateway's or a service's, compiled together
// with the keys it needs; a [Server] decides by the state it was last given,
// without a lock, and without I/O unless an identity provider must be asked
// about a token. At a gateway it verifies the credentials that a route demands,
// judges who came in, evaluates the route's rule and mints a Passport. Beside a
// service it takes the caller from the peer certificate and the user from the
// Passport, and evaluates the service's own rule.
//
// Every doubt is a denial. What the client is told is a status, a word that is
// the same for all it must not tell apart, and the decision's ID; why is in the
// [Record] of the decision, the log, the metrics and the dynamic metadata.
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
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/measure"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
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
	// CacheSize is about how many verified tokens are remembered. Default 8192.
	CacheSize int
	// Introspector asks identity providers about tokens. Nil can ask nobody, so
	// tokens that must be asked about are refused.
	Introspector Introspector
	// Contact returns when nothing newer was there for certain than the state. Nil
	// is for states that nobody else could make newer: those of files.
	Contact func() time.Time
	// Record gets every decision before it is answered. Who keeps it for long makes
	// copies of its texts: they hold on to the request. After an error the answer
	// is 503. Nil keeps none.
	Record func(*Record) error
}

// Introspector asks identity providers about tokens (RFC 7662).
type Introspector interface {
	// Introspect returns whom a token speaks for. An error that is a
	// [credential.Reason] is about the token; any other says that nobody could
	// be asked. Address is the client's.
	Introspect(ctx context.Context, p *chancerypb.Provider, token, address string, now time.Time) (*credential.Identity, error)
}

// Server implements Envoy's Authorization service, safe for concurrent use.
type Server struct {
	logger       *slog.Logger
	signer       func() *passport.Signer
	introspector Introspector
	contact      func() time.Time
	record       func(*Record) error
	cache        *credential.Cache
	passwords    *credential.Passwords
	// supposed are the passwords of requests that have not happened.
	supposed *credential.Passwords
	metrics  *measure.Checks
	state    atomic.Pointer[State]

	// callers are workloads of the mesh, clients come from outside.
	callers certificates[*certificate]
	clients certificates[*credential.Certificate]
}

var _ wire.Checker = (*Server)(nil)

// New returns a server that denies everything until it has a state.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		return nil, errors.New("ext_authz server needs a logger")
	}
	m, err := measure.NewChecks(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register ext_authz metrics: %w", err)
	}
	s := &Server{
		logger: c.Logger.With("component", "extauthz"), signer: c.Signer, introspector: c.Introspector, contact: c.Contact, record: c.Record,
		cache: credential.NewCache(cmp.Or(c.CacheSize, 8192)), passwords: credential.NewPasswords(), supposed: credential.NewPasswords(), metrics: m,
		callers: certificates[*certificate]{read: parseCertificate},
		clients: certificates[*credential.Certificate]{read: credential.ParseCertificate},
	}
	if s.signer == nil {
		s.signer = func() *passport.Signer { return nil }
	}
	if s.record == nil {
		s.record = recordNowhere
	}
	return s, nil
}

// recordNowhere is for who keeps no decisions, which not every policy bears.
func recordNowhere(r *Record) error {
	if r.Recording.Mode == audit.Required {
		return audit.ErrUnavailable
	}
	return nil
}

// DocumentOptions judge what package mesh cannot judge of documents.
func DocumentOptions() mesh.Options {
	return mesh.Options{
		CheckExpression: policy.Check, CheckBinding: policy.CheckBinding, CheckPassword: credential.CheckPasswordHash,
		CheckSubject: credential.CheckSubject, CheckRego: checkRego,
	}
}

// SetState makes s the state of all checks that begin from now on. Nil denies
// everything.
func (s *Server) SetState(state *State) { s.state.Store(state) }

// Answer implements [wire.Checker]. What cannot be decided is denied.
func (s *Server) Answer(ctx context.Context, r *wire.Request) *wire.Response {
	d := s.decide(ctx, r)
	s.metrics.Observe(measure.Check{Policy: d.Policy, Route: d.Route, Reason: d.Reason, Allowed: d.Allowed(), Took: d.Took})
	s.log(ctx, &d.Record)
	return d.response()
}

// Check is [Server.Answer] for those who have messages.
func (s *Server) Check(ctx context.Context, m *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	response := &authv3.CheckResponse{}
	return response, proto.Unmarshal(s.Answer(ctx, wire.FromMessage(m)).Append(nil), response)
}

func (s *Server) decide(ctx context.Context, r *wire.Request) *decision {
	d := newDecision()
	s.conclude(ctx, &check{decision: d}, r)
	if err := s.keep(&d.Record); err != nil {
		// The record that could not be kept stays as it was: others may read it.
		denied := *d
		denied.verdict, denied.Cause = auditUnavailable, err
		denied.settle()
		return &denied
	}
	return d
}

func (s *Server) conclude(ctx context.Context, c *check, r *wire.Request) {
	c.server, c.state = s, s.state.Load()
	c.verdict = c.conclusion(ctx, r)
	c.settle()
	c.Took = time.Since(c.began)
}

// keep records a decision.
func (s *Server) keep(r *Record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.record(r)
}

// settle writes the verdict into the record.
func (d *decision) settle() {
	d.Reason, d.Status = d.verdict.reason, d.clientStatus()
}

// conclusion turns whatever goes wrong into a denial.
func (c *check) conclusion(ctx context.Context, r *wire.Request) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			v, c.Cause = internalError, fmt.Errorf("panic: %v", p)
		}
	}()
	v = c.judge(ctx, r)
	if err := ctx.Err(); err != nil && v == allowed {
		v, c.Cause = cancelled, err
	}
	return v
}
