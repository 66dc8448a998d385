package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/passport"
)

const (
	// distinct is how many tokens, or Passports, there are of a kind.
	distinct = 100
	// cycle is how many checks pass until they repeat: each token is allowed
	// eight times, forbidden once, and once it is not valid.
	cycle = 10 * distinct
	// lifetime of tokens and Passports: longer than a run, and short enough for
	// a verifier of Passports.
	lifetime = 9 * time.Minute
)

// call is a check and the answer that it must get.
type call struct {
	request []byte
	status  int
	user    string
	// judged says that the answer through Envoy tells the Passport that went on.
	judged bool
}

// kind says how a check of a cycle must end: eight of ten are allowed, one
// forbidden, one has a credential that is not valid.
func kind(i int) int {
	switch i / distinct % 10 {
	case 0:
		return http.StatusForbidden
	case 1:
		return http.StatusUnauthorized
	}
	return http.StatusOK
}

// edgeCalls returns n checks at a gateway, in random order. Each has a token of
// its own, if they are all to be fresh.
func (w *world) edgeCalls(ctx context.Context, n int, fresh, merged bool) ([]*call, error) {
	users := distinct
	if fresh {
		users = n
	}
	tokens := make([]string, users)
	err := parallel(ctx, users, func(i int) (err error) {
		tokens[i], err = w.token(i, fresh)
		return err
	})
	if err != nil {
		return nil, err
	}
	calls := make([]*call, n)
	for i := range calls {
		if calls[i], err = edgeCall(i, i%users, tokens[i%users], merged); err != nil {
			return nil, err
		}
	}
	rand.Shuffle(n, func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	return calls, nil
}

// parallel calls do for 0 to n-1, by a few at a time.
func parallel(ctx context.Context, n int, do func(i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// user i is one of the sales people, or every fifth of those that lead them.
func user(i int) (name, group string) {
	if i%5 == 0 {
		return fmt.Sprintf("user-%d", i), "sales-admin"
	}
	return fmt.Sprintf("user-%d", i), "sales"
}

// token returns an access token of user i, half of them signed by RS256 and
// half by ES256.
func (w *world) token(i int, fresh bool) (string, error) {
	name, group := user(i)
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": issuer, "aud": []string{audience, "account"}, "sub": name, "jti": fmt.Sprintf("%x-%t", i+1<<40, fresh),
		"iat": now.Unix(), "exp": now.Add(lifetime).Unix(), "client_id": "web-shop", "tenant": "acme",
		"scope": "openid orders:read orders:write", "groups": []string{"staff", group, "vpn", "office-berlin"},
	}
	if i%2 == 0 {
		return sign(jwt.SigningMethodRS256, "rsa", claims, w.rsa)
	}
	return sign(jwt.SigningMethodES256, "ec", claims, w.ec)
}

func sign(method jwt.SigningMethod, keyID string, claims jwt.Claims, key any) (string, error) {
	t := jwt.NewWithClaims(method, claims)
	t.Header["kid"], t.Header["typ"] = keyID, "at+jwt"
	return t.SignedString(key)
}

// spoil changes the signature of a token.
func spoil(token string) string {
	const from = 20 // bytes from the end
	i := len(token) - from
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// edgeCall is what a user asks of the gateway: sales people read orders, and
// those that lead them make some.
func edgeCall(i, of int, token string, merged bool) (*call, error) {
	name, group := user(of)
	c := &call{status: kind(i), user: name}
	if c.status == http.StatusUnauthorized {
		token = spoil(token)
	}
	r := httpRequest{method: http.MethodGet, path: fmt.Sprintf("/orders/%d?expand=items", i), route: "read-order"}
	if (group == "sales-admin") == (c.status != http.StatusForbidden) {
		r.method, r.path, r.route = http.MethodPost, "/orders", "create-order"
	}
	r.policy, r.headers = "gateway/public", [][2]string{{"authorization", "Bearer " + token}}
	var err error
	c.request, err = r.encode(merged)
	return c, err
}

// serviceCalls returns n checks beside a service, in random order. Each has a
// Passport of its own, if they are all to be fresh.
func (w *world) serviceCalls(ctx context.Context, n int, fresh, merged bool) ([]*call, error) {
	calls := make([]*call, n)
	err := parallel(ctx, n, func(i int) (err error) {
		at := i
		if !fresh {
			at %= distinct
		}
		calls[i], err = w.serviceCall(i, at, merged)
		return err
	})
	rand.Shuffle(n, func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	return calls, err
}

// serviceCall shows Passport number at, which is the same each time.
func (w *world) serviceCall(i, at int, merged bool) (*call, error) {
	name, group := fmt.Sprintf("user-%d", at), "sales"
	c := &call{status: kind(i), user: name}
	r := httpRequest{
		method: http.MethodGet, path: fmt.Sprintf("/orders/%d?expand=items", i), route: "read-order",
		policy: "service/orders", caller: gatewayID, certificate: w.certificate,
	}
	if c.status == http.StatusForbidden {
		r.method, r.path, r.route = http.MethodPost, "/orders", "create-order"
	}
	token, err := w.signer.Mint(&passport.Passport{
		ID: fmt.Sprintf("7f3c9a52-5f0e-4b5d-9d0c-%012d", at), Subject: name, Scopes: []string{"openid", "orders:read", "orders:write"},
		Audience: domain, Gateway: gatewayID, IssuedAt: began, ExpiresAt: began.Add(lifetime),
		Provider: provider, Tenant: "acme", Groups: []string{"staff", group, "vpn", "office-berlin"}, Client: "web-shop",
		ClientIP: "192.0.2.1", Authn: "access_token",
	})
	if err != nil {
		return nil, err
	}
	if c.status == http.StatusUnauthorized {
		token = spoil(token)
	}
	r.headers = [][2]string{{"txn-token", token}}
	c.request, err = r.encode(merged)
	return c, err
}

// began is when the run did: Passports that are to be the same are issued then.
var began = time.Now()

// httpRequest is what of a check differs.
type httpRequest struct {
	policy, route, method, path string
	headers                     [][2]string
	caller, certificate         string
}

// encode returns the check as Envoy sends it.
func (r httpRequest) encode(merged bool) ([]byte, error) {
	const requestID = "5a0d0b9a-51c7-4e0e-a3d1-5b0f3b1c7c41"
	headers := slices.Concat([][2]string{
		{":authority", "api.shop.example"},
		{":method", r.method},
		{":path", r.path},
		{":scheme", "https"},
	}, browser(), [][2]string{
		{"x-forwarded-for", "192.0.2.1"},
		{"x-forwarded-proto", "https"},
		{"x-request-id", requestID},
	}, r.headers)
	source := socketAddress("192.0.2.1", 51234)
	source.Principal, source.Certificate = r.caller, r.certificate
	http := &authv3.AttributeContext_HttpRequest{
		Id: "15216587126158231230", Method: r.method, Path: r.path, Host: "api.shop.example", Scheme: "https", Protocol: "HTTP/2",
	}
	if merged {
		http.Headers = make(map[string]string, len(headers))
	} else {
		http.HeaderMap = &corev3.HeaderMap{}
	}
	for _, h := range headers {
		if merged {
			http.Headers[h[0]] = h[1]
		} else {
			http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
		}
	}
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: source, Destination: socketAddress("198.51.100.7", 8443),
		Request:              &authv3.AttributeContext_Request{Time: timestamppb.New(began), Http: http},
		ContextExtensions:    map[string]string{"policy": r.policy, "route": r.route},
		MetadataContext:      &corev3.Metadata{},
		RouteMetadataContext: &corev3.Metadata{},
	}})
}

// browser returns what one sends with each request.
func browser() [][2]string {
	return [][2]string{
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"},
		{"accept", "application/json, text/plain, */*"},
		{"accept-language", "en-GB,en;q=0.8,de;q=0.5"},
		{"cookie", "session=3f1b6a52d90c4e7f8a61; consent=necessary.statistics.2026-10-02; theme=dark; " +
			"basket=8d2e0c1744af4b6f9d5e21; ab=checkout-b.search-a.menu-c; tz=Europe%2FBerlin; lang=en-GB; seen=17643"},
	}
}

func socketAddress(ip string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}},
	}}}
}
