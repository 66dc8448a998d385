// Package opaenvoy answers Envoy's checks by policies that were written for the
// OPA-Envoy plugin, unchanged: they read the same input and return the same
// decisions. docs/rego.md says what is different, which is what the plugin leaves
// open to attack.
//
//	input.attributes      the check request, by the JSON names of its fields
//	input.parsed_path     its segments, decoded; input.parsed_query  lists by name
//	input.parsed_body     JSON, forms, multipart forms and gRPC messages, else null
//	input.truncated_body  Envoy sent only a part of it
//	input.version         {"ext_authz": "v3", "encoding": "protojson"}
//
// A decision is a boolean or an object with allowed, headers,
// response_headers_to_add, request_headers_to_remove, query_parameters_to_set,
// query_parameters_to_remove, body, http_status and dynamic_metadata.
//
// Whatever is no decision denies: also to Envoys that let pass what they get no
// answer to. The package trusts whoever may call Check: that must be Envoy alone.
package opaenvoy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/measure"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// Config says what a [Server] runs with.
type Config struct {
	Input InputOptions
	// StatusOnError is what clients get where the policy came to no decision;
	// default 403, as by default of Envoy, to which the plugin leaves it.
	StatusOnError int
	// Logger gets one record per check: denials at level info, what is allowed
	// at level debug. Required.
	Logger *slog.Logger
	// Registerer gets the metrics chancery_checks_total and
	// chancery_check_duration_seconds; nil for none.
	Registerer prometheus.Registerer
	// Record gets every decision before it is answered, to keep or to change. After
	// an error the answer is 503. Nil records none.
	Record func(*audit.Explained) error
}

// Server implements Envoy's Authorization service, safe for concurrent use.
type Server struct {
	input         InputOptions
	statusOnError typev3.StatusCode
	logger        *slog.Logger
	metrics       *measure.Checks
	record        func(*audit.Explained) error
	query         atomic.Pointer[rego.Query]
}

var _ wire.Checker = (*Server)(nil)

// New returns a server that denies everything until it has a query.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		return nil, errors.New("opa-envoy server needs a logger")
	}
	status := typev3.StatusCode(cmp.Or(c.StatusOnError, int(typev3.StatusCode_Forbidden)))
	if _, known := typev3.StatusCode_name[int32(status)]; !known || status < typev3.StatusCode_BadRequest {
		return nil, fmt.Errorf("status on error %d: must be that of an error, 400 or more", status)
	}
	m, err := measure.NewChecks(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s := &Server{input: c.Input, statusOnError: status, logger: c.Logger.With("component", "opaenvoy"), metrics: m, record: c.Record}
	if s.record == nil {
		s.record = func(*audit.Explained) error { return nil }
	}
	return s, nil
}

// Register makes s the Authorization service of a gRPC server, which must have
// the options of package wire.
func (s *Server) Register(r grpc.ServiceRegistrar) { wire.Register(r, s) }

// SetQuery makes q what decides all checks that begin from now on. Nil denies
// everything.
func (s *Server) SetQuery(q *rego.Query) { s.query.Store(q) }

// Ready reports why s denies everything, or nil.
func (s *Server) Ready() error {
	if s.query.Load() == nil {
		return errors.New("no policy yet")
	}
	return nil
}

// check is one decision.
type check struct {
	// reason is for operators, cause for the log alone.
	reason   string
	cause    error
	id       string
	request  string
	revision string
	// asked says that the policy was, where what decided is written, and values are
	// what it read where it did not allow.
	asked    bool
	where    string
	values   []policy.Value
	response *authv3.CheckResponse
	// hypothetical is of a request that has not happened.
	hypothetical bool
	// fault says why the request could not be read.
	fault error
}

// Answer implements [wire.Checker]. What cannot be read or decided is denied: an
// error of gRPC is what some Envoys let pass.
func (s *Server) Answer(ctx context.Context, r *wire.Request) *wire.Response {
	req, err := r.Message()
	return &wire.Response{Message: s.answer(ctx, req, err)}
}

// Check is [Server.Answer] for those who have messages.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.answer(ctx, req, nil), nil
}

func (s *Server) answer(ctx context.Context, req *authv3.CheckRequest, fault error) *authv3.CheckResponse {
	begin := time.Now()
	c := &check{id: rand.Text(), request: requestID(req), fault: fault}
	s.decide(ctx, c, req, begin)
	if err := s.record(c.explained(req, begin)); err != nil {
		s.refuse(c, err)
	}
	c.describe()
	s.metrics.Observe(measure.Check{Policy: "rego", Reason: c.reason, Allowed: c.allowed(), Took: time.Since(begin)})
	s.log(ctx, c)
	return c.response
}

// decide turns whatever goes wrong into a denial.
func (s *Server) decide(ctx context.Context, c *check, req *authv3.CheckRequest, now time.Time) {
	defer func() {
		if r := recover(); r != nil {
			s.refuse(c, fmt.Errorf("panic: %v", r))
		}
	}()
	if err := s.evaluate(ctx, c, req, now); err != nil {
		s.refuse(c, err)
	}
}

// Explain decides about a request that has not happened, as of a time; zero is
// now. Nothing is logged, recorded or counted.
func (s *Server) Explain(ctx context.Context, req *authv3.CheckRequest, now time.Time) *audit.Explained {
	begin := time.Now()
	if now.IsZero() {
		now = begin
	}
	c := &check{id: rand.Text(), request: requestID(req), hypothetical: true}
	s.decide(ctx, c, req, now)
	e := c.explained(req, begin)
	e.Time, e.Hypothetical = now, true
	return e
}

func (s *Server) evaluate(ctx context.Context, c *check, req *authv3.CheckRequest, now time.Time) error {
	query := s.query.Load()
	if query == nil {
		return errNoPolicy
	}
	c.revision = query.Revision()
	if c.fault != nil {
		return fmt.Errorf("%w: %w", errMalformed, c.fault)
	}
	input, err := Input(req, s.input)
	if err != nil {
		return err
	}
	c.response, err = c.ask(ctx, query, input, now)
	if c.reason = reasonDenied; c.allowed() {
		c.reason = reasonAllowed
	} else {
		c.values = Values(input, query.Reads())
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// ask returns the answer that a policy gives.
func (c *check) ask(ctx context.Context, query *rego.Query, input ast.Object, now time.Time) (*authv3.CheckResponse, error) {
	var result any
	var err error
	c.asked = true
	if c.hypothetical {
		result, c.where, err = query.Explain(ctx, input, now)
	} else {
		result, err = query.Eval(ctx, input, now)
		c.where = query.Where(result, err)
	}
	if err != nil {
		return nil, err
	}
	response, err := answer(result)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIllegal, err)
	}
	return response, nil
}

func (c *check) allowed() bool {
	return c.response != nil && c.response.GetStatus().GetCode() == int32(codes.OK)
}

var (
	errNoPolicy  = errors.New("no policy")
	errMalformed = errors.New("not decoded")
	errIllegal   = errors.New("illegal decision")
)

const (
	reasonAllowed = "allowed"
	reasonDenied  = "policy_denied"
)

// refuse makes the denial of a check that came to no decision.
func (s *Server) refuse(c *check, err error) {
	status := s.statusOnError
	switch {
	case errors.Is(err, errNoPolicy):
		c.reason, status = "no_state", typev3.StatusCode_ServiceUnavailable
	case errors.Is(err, audit.ErrUnavailable):
		c.reason, status = audit.ReasonUnavailable, typev3.StatusCode_ServiceUnavailable
	case errors.Is(err, errMalformed):
		c.reason, status = "request_malformed", typev3.StatusCode_ServiceUnavailable
	case errors.Is(err, ErrAmbiguousPath):
		c.reason, status = "path_ambiguous", typev3.StatusCode_BadRequest
	case errors.Is(err, ErrTooLarge):
		c.reason, status = "body_too_large", typev3.StatusCode_PayloadTooLarge
	case errors.Is(err, ErrBadRequest):
		c.reason, status = "request_unreadable", typev3.StatusCode_BadRequest
	case errors.Is(err, rego.ErrUndefined):
		c.reason, status = "policy_undefined", typev3.StatusCode_Forbidden
	case errors.Is(err, rego.ErrTimeout):
		c.reason = "policy_timeout"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		c.reason, status = "cancelled", typev3.StatusCode_ServiceUnavailable
	case errors.Is(err, errIllegal):
		c.reason = "policy_illegal_decision"
	default:
		c.reason = "policy_error"
	}
	c.cause = err
	c.response = denied(&authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: status}, Body: "access denied\n"})
}

// describe adds what access logs read: decision_id, as the plugin does, and the
// reason, unless the policy gives one of its own.
func (c *check) describe() {
	if c.response.DynamicMetadata == nil {
		c.response.DynamicMetadata = &structpb.Struct{}
	}
	fields := c.response.DynamicMetadata.Fields
	if fields == nil {
		fields = map[string]*structpb.Value{}
		c.response.DynamicMetadata.Fields = fields
	}
	fields["decision_id"] = structpb.NewStringValue(c.id)
	if _, taken := fields["reason"]; !taken {
		fields["reason"] = structpb.NewStringValue(c.reason)
	}
}

// explained is c for the decision log and for who asks. It names no user: only the
// policy knows.
func (c *check) explained(req *authv3.CheckRequest, begin time.Time) *audit.Explained {
	step := audit.Step{What: "rego", Subject: c.where, Outcome: c.reason}
	switch {
	case !c.asked:
		step.What = "request"
	case c.allowed():
		step.Outcome = "ok"
	}
	e := &audit.Explained{Decision: c.decision(req, begin), Trace: []audit.Step{step}}
	for _, v := range c.values {
		e.Values = append(e.Values, audit.Value(v))
	}
	if c.cause != nil {
		e.Cause = c.cause.Error()
	}
	return e
}

func (c *check) decision(req *authv3.CheckRequest, begin time.Time) audit.Decision {
	attributes := req.GetAttributes()
	d := audit.Decision{
		Time: begin, ID: c.id, Decision: audit.Deny, Status: int(c.response.GetDeniedResponse().GetStatus().GetCode()), Reason: c.reason,
		Revision: c.revision, Rule: c.where, Method: attributes.GetRequest().GetHttp().GetMethod(), Path: attributes.GetRequest().GetHttp().GetPath(),
		Caller: attributes.GetSource().GetPrincipal(), IP: attributes.GetSource().GetAddress().GetSocketAddress().GetAddress(),
		RequestID: c.request, Microseconds: time.Since(begin).Microseconds(),
	}
	if c.allowed() {
		d.Decision, d.Status = audit.Allow, 200
	}
	return d
}

// requestID returns the ID that Envoy gave the request, for the log.
func requestID(req *authv3.CheckRequest) string {
	http := req.GetAttributes().GetRequest().GetHttp()
	id := cmp.Or(http.GetHeaders()["x-request-id"], http.GetId())
	return id[:min(len(id), 128)]
}

// isOfRequest reports whether it is the request that there was no decision about.
func isOfRequest(err error) bool {
	return errors.Is(err, errMalformed) || errors.Is(err, ErrBadRequest) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrAmbiguousPath)
}

func (s *Server) log(ctx context.Context, c *check) {
	level := slog.LevelInfo
	switch {
	case c.allowed():
		level = slog.LevelDebug
	case c.cause != nil && !isOfRequest(c.cause):
		level = slog.LevelWarn // of the policy, not of the client
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("decision_id", c.id), slog.String("reason", c.reason), slog.String("request_id", c.request),
		slog.String("revision", c.revision),
	}
	if c.cause != nil {
		attrs = append(attrs, slog.Any("err", c.cause))
	}
	if c.allowed() {
		s.logger.LogAttrs(ctx, level, "check allowed", attrs...)
	} else {
		s.logger.LogAttrs(ctx, level, "check denied", attrs...)
	}
}
