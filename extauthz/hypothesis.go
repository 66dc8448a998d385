package extauthz

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

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
	trustDomain := ""
	if state := s.state.Load(); state != nil {
		trustDomain = state.trustDomain
	}
	s.conclude(ctx, &check{decision: d, hypothesis: h}, h.request(trustDomain))
	return &d.Record
}

// request is what Envoy would send.
func (h *Hypothesis) request(trustDomain string) *wire.Request {
	caller := h.Caller
	if caller != "" && !strings.Contains(caller, "://") {
		caller = "spiffe://" + trustDomain + "/" + caller
	}
	m := h.message(caller)
	http := m.GetAttributes().GetRequest().GetHttp()
	http.RawBody, http.HeaderMap = h.Body, &corev3.HeaderMap{}
	for _, header := range h.Headers {
		http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: header.Name, RawValue: []byte(header.Value)})
	}
	return wire.FromMessage(m)
}

// Plain is what an Envoy would send that is told nothing about raw headers and
// bodies, for policies that were written for such.
func (h *Hypothesis) Plain() *authv3.CheckRequest {
	m := h.message(h.Caller)
	http := m.GetAttributes().GetRequest().GetHttp()
	http.Headers = map[string]string{":method": h.Method, ":path": h.Target, ":authority": h.Host}
	for _, header := range h.Headers {
		name := strings.ToLower(header.Name)
		if before, twice := http.Headers[name]; twice {
			http.Headers[name] = before + "," + header.Value
		} else {
			http.Headers[name] = header.Value
		}
	}
	http.Body = strings.ToValidUTF8(string(h.Body), "!") // as Envoy mends it
	return m
}

// message is what Envoy sends but for headers and the body.
func (h *Hypothesis) message(caller string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address:   &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: h.IP}}},
			Principal: caller, Certificate: url.PathEscape(h.Certificate),
		},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: h.Method, Host: h.Host, Path: h.Target, Size: int64(len(h.Body)),
		}},
	}}
}

// errNotAsked says that an identity provider was not to be asked.
var errNotAsked = errors.New("identity providers are not asked about requests that have not happened")
