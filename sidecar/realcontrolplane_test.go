package sidecar_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/discovery/file"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/xdstest"
	"github.com/chancery-mesh/chancery/sidecar"
)

// realMesh is the real control plane with real agents beside a gateway and a
// service, and an identity provider; Envoys are left out.
type realMesh struct {
	t      *testing.T
	dir    string
	listen string
	// line is what agents connect through.
	line   *line
	issuer string
	key    *ecdsa.PrivateKey
	admin  *controlplane.AdminClient
	server *controlplane.Server
	stop   func()
	// edge and side are the gateway's agent and the service's.
	edge, side *realAgent
}

const realDocuments = `
kind: Mesh
name: shop
trustDomain: shop.example
passport: {lifetime: 5m}
---
kind: IdentityProvider
name: staff
issuer: ISSUER
audiences: [shop]
clockSkew: 0s
allowHTTP: true
allowPrivate: true
---
kind: Gateway
name: public
profile: private
listen: 127.0.0.1:8080
authenticate: {accessToken: staff, tenant: optional}
maxStaleness: STALENESS
routes:
  - {name: orders, match: {path: "/orders/{id}"}, to: orders}
---
kind: Service
name: orders
callers: [public]
routes:
  - {name: get, match: {path: "/orders/{id}"}, allow: "user.id != ''"}
`

func startRealMesh(t *testing.T, maxStaleness time.Duration) *realMesh {
	t.Helper()
	m := &realMesh{t: t, dir: socketDir(t), listen: freeAddress(t).String()}
	m.issuer = m.startIssuer()
	for name, text := range map[string]string{
		"mesh/mesh.yaml": strings.NewReplacer("ISSUER", m.issuer, "STALENESS", maxStaleness.String()).Replace(realDocuments),
		"registry.yaml":  "services: {}\n",
	} {
		path := filepath.Join(m.dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte(text), 0o600))
	}
	m.start()
	t.Cleanup(func() { m.stop() })
	m.line = newLine(t, m.listen)
	m.edge, m.side = m.join("gateway", "public"), m.join("service", "orders")
	return m
}

// start starts the control plane, as a new process would.
func (m *realMesh) start() {
	m.t.Helper()
	registry, err := file.New(file.Config{Path: filepath.Join(m.dir, "registry.yaml")})
	check(m.t, err)
	m.server, err = controlplane.New(controlplane.Config{
		Documents: filepath.Join(m.dir, "mesh"), Options: extauthz.DocumentOptions(), Registry: registry,
		RunDir: filepath.Join(m.dir, "run"), Listen: m.listen, StateDir: filepath.Join(m.dir, "control"),
		Logger: slog.New(slog.DiscardHandler),
	})
	check(m.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.server.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Error(err)
		}
	})
	m.admin = controlplane.NewAdminClient(filepath.Join(m.dir, "run"))
	soon, giveUp := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer giveUp()
	check(m.t, m.admin.Await(soon))
}

// startIssuer serves the keys of an identity provider.
func (m *realMesh) startIssuer() string {
	m.t.Helper()
	var err error
	m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(m.t, err)
	jwk, err := jwkset.NewJWKFromKey(&m.key.PublicKey, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "k1", ALG: "ES256", USE: "sig"}})
	check(m.t, err)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	m.t.Cleanup(server.Close)
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	answer("/.well-known/openid-configuration", map[string]any{"issuer": server.URL, "jwks_uri": server.URL + "/keys"})
	answer("/keys", jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{jwk.Marshal()}})
	return server.URL
}

// token returns an access token that is issued now.
func (m *realMesh) token(user string) string {
	m.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": m.issuer, "aud": "shop", "sub": user, "jti": rand.Text(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(m.key)
	check(m.t, err)
	return signed
}

// realAgent is an agent of the mesh, and Envoy's connection to it.
type realAgent struct {
	*agent
	conn *grpc.ClientConn
}

func (m *realMesh) join(role identity.Role, name string) *realAgent {
	m.t.Helper()
	id := identity.ID{Role: role, Name: name}
	var token controlplane.NewToken
	eventually(m.t, "documents are served", func() (err error) {
		token, err = m.admin.CreateToken(m.t.Context(), id, time.Minute)
		return err
	})
	a := &realAgent{agent: &agent{t: m.t, probation: 20 * time.Millisecond, config: sidecar.Config{
		Identity: id, Instance: "1", ControlPlane: m.line.address, Join: sidecar.Join{Token: token.Secret},
		StateDir: filepath.Join(socketDir(m.t), "state"), Logger: slog.New(slog.DiscardHandler),
	}}}
	m.t.Cleanup(a.stop)
	a.start()
	a.conn = xdstest.Dial(m.t, "unix:"+a.socket())
	return a
}

// ask asks the gateway with a token, or the service with a Passport. It returns
// the reason of the answer, and the Passport of the gateway's.
func (m *realMesh) ask(a *realAgent, header, value string) (reason, passport string) {
	m.t.Helper()
	headers := []*corev3.HeaderValue{{Key: "x-request-id", RawValue: []byte("r-1")}, {Key: header, RawValue: []byte(value)}}
	source := &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
	}}}
	route := "orders /orders/{id} to orders"
	if a == m.side {
		route = "get /orders/{id}"
		c := m.edge.Identity().Certificate
		first, _, _ := strings.Cut(c.PEM, "-----END CERTIFICATE-----\n")
		source.Principal, source.Certificate = c.SPIFFEID, url.PathEscape(first+"-----END CERTIFICATE-----\n")
	}
	resp, err := authv3.NewAuthorizationClient(a.conn).Check(m.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: source, ContextExtensions: map[string]string{envoy.ContextPolicy: a.config.Identity.String(), envoy.ContextRoute: route},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Path: "/orders/1", Host: "shop.example", HeaderMap: &corev3.HeaderMap{Headers: headers},
		}},
	}})
	if err != nil {
		return err.Error(), ""
	}
	for _, h := range resp.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "txn-token" {
			passport = string(h.GetHeader().GetRawValue()) + h.GetHeader().GetValue()
		}
	}
	return resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue(), passport
}

// enters waits until a token opens the gateway and its Passport the service, and
// returns the latter.
func (m *realMesh) enters(token string) (passport string) {
	m.t.Helper()
	eventually(m.t, "the gateway lets it in", func() error {
		var reason string
		reason, passport = m.ask(m.edge, "authorization", "Bearer "+token)
		return is(reason, "allowed")
	})
	eventually(m.t, "so does the service", func() error {
		reason, _ := m.ask(m.side, "txn-token", passport)
		return is(reason, "allowed")
	})
	return passport
}

// expect fails unless these are the answers to a token and a Passport.
func (m *realMesh) expect(when, token, passport, want string) {
	m.t.Helper()
	if reason, _ := m.ask(m.edge, "authorization", "Bearer "+token); reason != want {
		m.t.Errorf("%s: at the gateway %s, want %s", when, reason, want)
	}
	if reason, _ := m.ask(m.side, "txn-token", passport); reason != want {
		m.t.Errorf("%s: at the service %s, want %s", when, reason, want)
	}
}

func TestRevokedUserIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	m := startRealMesh(t, time.Hour)
	token, other := m.token("alice"), m.token("bob")
	passport, others := m.enters(token), m.enters(other)

	var got controlplane.RevocationStatus
	eventually(t, "all have taken it", func() (err error) { // an answer waits for two seconds
		got, err = m.admin.Revoke(t.Context(), controlplane.Revocation{
			Target: controlplane.Target{Subject: "alice"}, CredentialScope: controlplane.CredentialScope{Provider: "staff"},
		})
		return errors.Join(err, is(got.Proxies, 2), is(got.Acknowledged, 2))
	})
	m.expect("revoked", token, passport, "token_revoked")
	m.expect("another's", other, others, "allowed")
	time.Sleep(time.Until(got.Credentials.Before.Truncate(time.Second).Add(time.Second)))
	again := m.token("alice")
	fresh := m.enters(again)

	// So it stays when the control plane is away and the agents start again.
	m.stop()
	for _, a := range []*realAgent{m.edge, m.side} {
		a.stop()
		a.start()
	}
	eventually(t, "the gateway decides again", func() error {
		reason, _ := m.ask(m.edge, "authorization", "Bearer "+other)
		return is(reason, "allowed")
	})
	eventually(t, "the service decides again", func() error {
		reason, _ := m.ask(m.side, "txn-token", others)
		return is(reason, "allowed")
	})
	m.expect("after a restart of agents", token, passport, "token_revoked")
	m.expect("after a restart of agents, the new login", again, fresh, "allowed")

	// And when it is back; until it is undone.
	m.start()
	eventually(t, "agents are back", func() error {
		proxies, err := m.admin.Proxies(t.Context())
		if err != nil {
			return err
		}
		connected := 0
		for _, p := range proxies {
			if p.Connected && p.Revocations > 0 {
				connected++
			}
		}
		return is(connected, 2)
	})
	m.expect("after a restart of the control plane", token, passport, "token_revoked")
	undone, err := m.admin.UndoRevocation(t.Context(), got.Credentials.ID)
	check(t, err)
	if undone.Proxies != 2 {
		t.Errorf("undone: %+v", undone)
	}
	eventually(t, "both have taken that", func() error {
		atGateway, _ := m.ask(m.edge, "authorization", "Bearer "+token)
		atService, _ := m.ask(m.side, "txn-token", passport)
		return errors.Join(is(atGateway, "allowed"), is(atService, "allowed"))
	})
}

// A gateway that is cut off, and whose connection does not say so, refuses
// everything after its document's maxStaleness; the service, whose document says
// nothing of it, goes on.
func TestGatewayThatIsCutOff(t *testing.T) {
	t.Parallel()
	const maxStaleness = 10 * time.Second
	m := startRealMesh(t, maxStaleness)
	token := m.token("alice")
	passport := m.enters(token)
	reason := func() string {
		got, _ := m.ask(m.edge, "authorization", "Bearer "+token)
		return got
	}
	m.line.cut()
	begin := time.Now()
	var contact time.Time // no later one is possible
	text, err := os.ReadFile(filepath.Join(m.edge.config.StateDir, "contact"))
	check(t, errors.Join(err, contact.UnmarshalText(text)))
	for refused := false; !refused; time.Sleep(100 * time.Millisecond) {
		before := time.Now()
		got := reason()
		refused = got == "pdp_stale"
		switch {
		case !refused && got != "allowed":
			t.Fatalf("%v after the cut: %s", time.Since(begin), got)
		case refused && time.Since(contact) < maxStaleness:
			t.Fatalf("it refused %v after contact was made", time.Since(contact))
		case !refused && before.Sub(begin) > maxStaleness:
			t.Fatalf("it does not refuse %v after the cut", before.Sub(begin))
		}
	}
	m.edge.stop()
	m.edge.start()
	eventually(t, "it refuses after a restart", func() error { return is(reason(), "pdp_stale") })
	if got, _ := m.ask(m.side, "txn-token", passport); got != "allowed" {
		t.Errorf("the service: %s", got)
	}
	m.line.mend()
	begin = time.Now()
	eventually(t, "it is back", func() error { return is(reason(), "allowed") })
	t.Logf("back after %v", time.Since(begin))
}

// line is a way to an address that can be cut: what is sent gets lost, and nobody
// is told.
type line struct {
	address string
	mu      sync.Mutex
	dead    bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l := &line{address: listener.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); open.Wait() })
	ctx := t.Context()
	open.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { l.carry(ctx, from, to) })
		}
	})
	return l
}

func (l *line) carry(ctx context.Context, from net.Conn, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		_ = from.Close()
		return
	}
	defer context.AfterFunc(ctx, func() { _ = from.Close(); _ = to.Close() })()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(lossy{way[1], l}, way[0])
			_ = way[1].Close()
		})
	}
	both.Wait()
}

// lossy loses what is sent while its line is cut.
type lossy struct {
	net.Conn
	line *line
}

func (c lossy) Write(b []byte) (int, error) {
	if c.line.isCut() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// ReadFrom keeps io.Copy from going past Write.
func (c lossy) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func (l *line) cut()  { l.set(true) }
func (l *line) mend() { l.set(false) }

func (l *line) set(dead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = dead
}

func (l *line) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}
