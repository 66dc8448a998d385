package extauthz

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// Hypothesis is a request that has not happened, for [Server.Explain].
type Hypothesis struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	// Target is the path, with the query if there is one.
	Target  string               `json:"target"`
	Headers []HypotheticalHeader `json:"headers"`
	Body    []byte               `json:"body"`
	// IP is where it comes from.
	IP string `json:"ip"`
	// Caller is the SPIFFE ID of the workload that calls a service, or its path
	// ("gateway/public"). Its certificate is taken to be good. Empty is a
	// connection in the clear.
	Caller string `json:"caller"`
	// Certificate is a gateway's client's, in PEM, and taken to be one that Envoy
	// lets in.
	Certificate string `json:"certificate"`
	// Time is when it is made; zero is now.
	Time time.Time `json:"time"`
	// Introspect lets identity providers be asked about its tokens. Otherwise it is
	// supposed that they would find nothing wrong with those that are JWTs.
	Introspect bool `json:"introspect"`
}

// HypotheticalHeader is one line of a header.
type HypotheticalHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Explain decides about a request that has not happened, on the first route that
// it matches. It mints nothing, asks no identity provider unless h says so, and
// is neither recorded nor counted.
func (s *Server) Explain(ctx context.Context, h *Hypothesis) *Record {
	d := newDecision()
	if !h.Time.IsZero() {
		d.Time = h.Time
	}
	r := h.request()
	if state := s.state.Load(); state != nil && h.Caller != "" && !strings.Contains(h.Caller, "://") {
		r.Source.Principal = "spiffe://" + state.trustDomain + "/" + h.Caller
	}
	s.conclude(ctx, &check{decision: d, hypothesis: h}, r)
	return &d.Record
}

func (h *Hypothesis) request() *wire.Request {
	r := &wire.Request{
		HTTP: true, Method: h.Method, Host: h.Host, Path: h.Target, RawBody: string(h.Body), Size: int64(len(h.Body)),
		Source: wire.Peer{Address: h.IP, Principal: h.Caller, Certificate: url.PathEscape(h.Certificate)},
	}
	for _, header := range h.Headers {
		r.Headers = append(r.Headers, wire.Pair(header))
	}
	return r
}

// errNotAsked says that an identity provider was not to be asked.
var errNotAsked = errors.New("identity providers are not asked about requests that have not happened")
