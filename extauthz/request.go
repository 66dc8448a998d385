package extauthz

import (
	"crypto/rand"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// request is what of a check request counts.
type request struct {
	// policy and route are what Envoy's route says that the check is for.
	policy, route string
	method, host  string
	// path and query are the two halves of the request target, as it was sent:
	// nothing decodes or repairs it, so there is no second reading.
	path, query, target string
	headers             headers
	// body is as far as Envoy buffered it, of a request whose body has size
	// bytes; -1 if that is not known.
	body []byte
	size int64
	// caller is the SPIFFE ID of the peer certificate, ip the client's address.
	caller, ip string
	// certificate is the peer's, as Envoy writes it.
	certificate string
}

// Context extensions, which package envoy sets.
const (
	contextPolicy = "policy"
	contextRoute  = "route"
)

func readRequest(req *authv3.CheckRequest) (r request, ok bool) {
	attributes := req.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	if http == nil {
		return r, false
	}
	path, query, _ := strings.Cut(http.GetPath(), "?")
	extensions := attributes.GetContextExtensions()
	return request{
		policy: extensions[contextPolicy], route: extensions[contextRoute],
		method: http.GetMethod(), host: http.GetHost(), path: path, query: query, target: http.GetPath(),
		body: bodyOf(http), size: http.GetSize(),
		headers: headers{raw: http.GetHeaderMap().GetHeaders(), merged: http.GetHeaders()},
		caller:  attributes.GetSource().GetPrincipal(),
		ip:      address(attributes.GetSource().GetAddress()),

		certificate: attributes.GetSource().GetCertificate(),
	}, true
}

// bodyOf returns the body, which comes in one of two fields.
func bodyOf(http *authv3.AttributeContext_HttpRequest) []byte {
	if raw := http.GetRawBody(); len(raw) > 0 {
		return raw
	}
	return []byte(http.GetBody())
}

// isTruncated reports whether the body goes on after what is known of it, or
// might: a rule on a part of it would say nothing of the rest.
func (r *request) isTruncated() bool {
	partial := r.headers.lines(headerPartialBody)
	return len(partial) > 0 && (len(partial) > 1 || partial[0] != "false") || r.size > int64(len(r.body))
}

// address writes an IPv4 address in one way, however it came.
func address(a *corev3.Address) string {
	ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return ""
	}
	return ip.Unmap().WithZone("").String()
}

// requestID returns the id that Envoy gave the request, or a new one.
func (r *request) requestID() string {
	const maxLength = 128
	lines := r.headers.lines(headerRequestID)
	if len(lines) == 1 && len(lines[0]) <= maxLength && jose.IsIdentifier(lines[0]) {
		return lines[0]
	}
	return rand.Text()
}

// headers are those of a request: as they were sent (encode_raw_headers), or
// else with the lines of a name merged by commas, as Envoy does by default.
type headers struct {
	raw    []*corev3.HeaderValue
	merged map[string]string
}

func value(h *corev3.HeaderValue) string {
	if raw := h.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return h.GetValue()
}

// lines returns the lines of a header, whose name is in lower case. Merged ones
// are one line, with a comma that nobody can tell from one in a value.
func (h headers) lines(name string) []string {
	var lines []string
	for _, header := range h.raw {
		if strings.EqualFold(header.GetKey(), name) {
			lines = append(lines, value(header))
		}
	}
	if merged, ok := h.merged[name]; ok {
		lines = append(lines, merged)
	}
	return lines
}

// all returns all headers for rules. Merged lines are taken apart, so that a
// rule against one of several values holds.
func (h headers) all() map[string][]string {
	all := make(map[string][]string, len(h.raw)+len(h.merged))
	for _, header := range h.raw {
		name := strings.ToLower(header.GetKey())
		all[name] = append(all[name], value(header))
	}
	for name, merged := range h.merged {
		for line := range strings.SplitSeq(merged, ",") {
			all[name] = append(all[name], strings.TrimSpace(line))
		}
	}
	return all
}
