package extauthz

import (
	"crypto/rand"
	"mime"
	"net/netip"
	"strings"

	"github.com/chancery-mesh/chancery/extauthz/wire"
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
	// body is as far as Envoy buffered it and shows it in bytes: what is not UTF-8 is
	// repaired in a text, and the service gets what was sent. The whole has size
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

func readRequest(r *wire.Request) request {
	path, query, _ := strings.Cut(r.Path, "?")
	return request{
		policy: r.Extension(contextPolicy), route: r.Extension(contextRoute),
		method: r.Method, host: r.Host, path: path, query: query, target: r.Path,
		body: []byte(r.RawBody), size: r.Size, headers: headers{raw: r.Headers, merged: r.Merged},
		caller: r.Source.Principal, certificate: r.Source.Certificate, ip: address(r.Source.Address),
	}
}

// hasMendedPath reports whether the service may get another path than is asked
// about: Envoy writes "!" for bytes that are not UTF-8, which HTTP/2 lets through,
// and sends them on as they are. It shows them only with encode_raw_headers. The
// routes of Envoys that Chancery configures match none.
func (r *request) hasMendedPath() bool {
	for _, h := range r.headers.raw {
		if h.Name == ":path" {
			return h.Value != r.target
		}
	}
	return strings.Contains(r.path, "!")
}

// isTruncated reports whether the body goes on after what is known of it, or
// might: a rule on a part of it would say nothing of the rest.
func (r *request) isTruncated() bool {
	partial := r.headers.lines(headerPartialBody)
	return len(partial) > 0 && (len(partial) > 1 || partial[0] != "false") || r.size > int64(len(r.body))
}

// address writes an IPv4 address in one way, however it came.
func address(text string) string {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ""
	}
	if ip.Is4() {
		return text // it has no other way
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
type headers struct{ raw, merged []wire.Pair }

// lines returns the lines of a header, whose name is in lower case. Merged ones
// are one line, with a comma that nobody can tell from one in a value.
func (h headers) lines(name string) (lines []string) {
	for _, header := range h.raw {
		if len(header.Name) == len(name) && strings.EqualFold(header.Name, name) {
			lines = append(lines, header.Value)
		}
	}
	for _, header := range h.merged {
		if header.Name == name {
			lines = append(lines, header.Value)
		}
	}
	return lines
}

// all returns all headers for rules. Merged lines are taken apart, so that a
// rule against one of several values holds.
func (h headers) all() map[string][]string {
	all := make(map[string][]string, len(h.raw)+len(h.merged))
	for _, header := range h.raw {
		name := strings.ToLower(header.Name)
		all[name] = append(all[name], header.Value)
	}
	for _, header := range h.merged {
		for line := range strings.SplitSeq(header.Value, ",") {
			all[header.Name] = append(all[header.Name], strings.TrimSpace(line))
		}
	}
	return all
}

// sayJSON reports whether a body is said to be JSON in UTF-8 and nothing else: what
// a service might read in another way than rules do is shown to no rule.
func (h headers) sayJSON() bool {
	types := h.lines("content-type")
	if len(types) != 1 || len(h.lines("content-encoding")) > 0 {
		return false
	}
	media, parameters, err := mime.ParseMediaType(types[0])
	if charset, ok := parameters["charset"]; ok && strings.EqualFold(charset, "utf-8") {
		delete(parameters, "charset")
	}
	json := media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")
	return err == nil && len(parameters) == 0 && json
}
