package authz_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/chancery-mesh/chancery/examples/shop/issuer"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/passport"
)

// TestPlainEnvoy runs the real programs as the README says: chancery authz from
// documents, and an Envoy with a static configuration.
func TestPlainEnvoy(t *testing.T) {
	t.Parallel()
	e := start(t)
	ada, joe := e.token(nil), e.token(jwt.MapClaims{"groups": []string{"visitors"}})
	key := e.apiKey()
	for _, row := range []struct {
		name, path string
		header     http.Header
		status     int
		code       string
		user       string
	}{
		{"a token", "/orders/7", bearer(ada), 200, "", "ada"},
		{"no token", "/orders/7", nil, 401, "unauthenticated", ""},
		{"a token of the wrong group", "/orders/7", bearer(joe), 403, "forbidden", ""},
		{"anybody", "/catalogue/shoes", nil, 200, "", ""},
		{"anybody with a token, which stays here", "/catalogue/shoes", bearer(ada), 200, "", ""},
		{"anybody with a Passport, which is nobody's", "/catalogue/shoes", http.Header{"Txn-Token": {"x"}}, 200, "", ""},
		{"an API key", "/reports/monday", http.Header{"X-Api-Key": {key}}, 200, "", "branch-7"},
		{"a token where a key is wanted", "/reports/monday", bearer(ada), 401, "unauthenticated", ""},
		{"no route", "/admin", bearer(ada), 403, "forbidden", ""},
		{"a path with two readings", "/catalogue//../orders/7", nil, 400, "bad_request", ""},
		{"an escaped letter", "/%6frders/7", bearer(ada), 400, "bad_request", ""},
	} {
		before := e.reached.Load()
		status, body, header := e.get(row.path, row.header)
		if status != row.status || code(body) != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, status, body, row.status, row.code)
		}
		if status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") && !strings.HasPrefix(header.Get("WWW-Authenticate"), "ApiKey ") {
			t.Errorf("%s: challenge %q", row.name, header.Get("WWW-Authenticate"))
		}
		if reached := e.reached.Load() - before; (reached == 1) != (status == 200) {
			t.Errorf("%s: %d requests reached the service", row.name, reached)
		}
		if status == 200 {
			e.judge(row.name, body, row.user)
		}
	}
}

// Envoy asks about another path than it sends on where bytes are not UTF-8. HTTP/2
// lets them through.
func TestPathsAreThoseThatTheServiceGets(t *testing.T) {
	t.Parallel()
	e := start(t)
	before := e.reached.Load()
	for path, want := range map[string]string{"/catalogue/a!": "200", "/catalogue/a\xff": "400"} {
		if got := e.rawPath(path); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
	if reached := e.reached.Load() - before; reached != 1 {
		t.Errorf("%d requests reached the service", reached)
	}
}

// rawPath sends bytes as the path over HTTP/2 and returns the status.
func (e *example) rawPath(path string) string {
	e.Helper()
	conn, err := net.Dial("tcp", e.envoy)
	if err != nil {
		e.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", e.envoy}, {":path", path}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			e.Fatal(err)
		}
		if answer, ok := frame.(*http2.MetaHeadersFrame); ok {
			return answer.PseudoValue("status")
		}
	}
}

// TestDocumentsAreFollowed changes a document under a running decision point.
func TestDocumentsAreFollowed(t *testing.T) {
	t.Parallel()
	e := start(t)
	ada := bearer(e.token(nil))
	document := filepath.Join(e.documents, "public.yaml")
	before, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		from, to string
		status   int
	}{
		{"'sales' in user.groups", "'support' in user.groups", 403},
		{"'sales' in user.groups", "'sales' in user.gruops", 403}, // a fault: the last good one stays
		{"", "", 200},
	} {
		if err := os.WriteFile(document, bytes.Replace(before, []byte(row.from), []byte(row.to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		e.until(fmt.Sprintf("%d with %s", row.status, row.to), func() bool {
			status, _, _ := e.get("/orders/7", ada)
			return status == row.status
		})
	}
}

type example struct {
	*testing.T
	dir, documents, chancery string
	envoy, http              string
	issuer                   *issuer.Issuer
	reached                  atomic.Int64
}

func start(t *testing.T) *example {
	t.Helper()
	e := &example{T: t, dir: t.TempDir()}
	envoyPath := envoytest.Path(t)
	e.chancery = filepath.Join(e.dir, "chancery")
	e.do(exec.Command("go", "build", "-o", e.chancery, "../../cmd/chancery"))
	service := httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(service.Close)
	idp := e.startIssuer()
	authz, admin := e.port(), e.port()
	e.envoy, e.http = e.port(), e.port()
	ports := strings.NewReplacer(
		"http://127.0.0.1:9000", idp, "port_value: 10000", "port_value: "+port(e.envoy), "port_value: 9191", "port_value: "+port(authz),
		"port_value: 9901", "port_value: "+port(admin), "port_value: 8080", "port_value: "+port(service.Listener.Addr().String()))
	e.documents = filepath.Join(e.dir, "mesh")
	e.copy(ports, "mesh", e.documents)
	e.copy(ports, ".", e.dir)
	e.run(e.chancery, "authz", "--documents", e.documents, "--listen", authz, "--http", e.http, "--passport-key", e.passportKey())
	e.run(envoyPath, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c", filepath.Join(e.dir, "envoy.yaml"))
	token := bearer(e.token(nil))
	e.until("it serves", func() bool {
		status, _, _ := e.get("/orders/7", token)
		return status == 200
	})
	return e
}

// serve is the service behind: it says what it got.
func (e *example) serve(w http.ResponseWriter, r *http.Request) {
	e.reached.Add(1)
	_ = json.NewEncoder(w).Encode(r.Header) // the client went away
}

// judge looks at what the service got: a Passport of the user, which anybody
// can verify with the keys that are published, and nothing that the client came
// with.
func (e *example) judge(name, body, user string) {
	e.Helper()
	var got http.Header
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		e.Fatalf("%s: %v: %s", name, err, body)
	}
	for _, secret := range []string{"Authorization", "X-Api-Key", "X-Id-Token"} {
		if got.Get(secret) != "" {
			e.Errorf("%s: %s reached the service", name, secret)
		}
	}
	token := got.Get(passport.Header)
	if user == "" {
		if token != "" {
			e.Errorf("%s: a Passport reached the service", name)
		}
		return
	}
	_, keys, _ := fetch(e.T, "http://"+e.http+"/passport-keys", nil)
	set, err := passport.ParseKeySet([]byte(keys), "spiffe://shop.example/gateway/public")
	if err != nil {
		e.Fatal(err)
	}
	verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: "shop.example", Keys: set})
	if err != nil {
		e.Fatal(err)
	}
	if p, err := verifier.Verify(token); err != nil || p.Subject != user {
		e.Errorf("%s: %v, %v, want a Passport of %s", name, p, err, user)
	}
}

func (e *example) startIssuer() string {
	var handler atomic.Pointer[http.Handler]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(w, r) }))
	e.Cleanup(server.Close)
	var err error
	if e.issuer, err = issuer.New(server.URL); err != nil {
		e.Fatal(err)
	}
	public, err := e.issuer.Public()
	if err != nil {
		e.Fatal(err)
	}
	handler.Store(&public)
	return server.URL
}

func (e *example) token(claims jwt.MapClaims) string {
	token, err := e.issuer.Token(claims)
	if err != nil {
		e.Fatal(err)
	}
	return token
}

// apiKey is made as an operator makes one.
func (e *example) apiKey() string {
	e.Helper()
	out := filepath.Join(e.dir, "key")
	e.do(exec.Command(e.chancery, "apikey", "create", "--documents", e.documents, "--client", "till",
		"--owner", "branch-7", "--scopes", "reports:read", "--out", out))
	key, err := os.ReadFile(out)
	if err != nil {
		e.Fatal(err)
	}
	value := strings.TrimSpace(string(key))
	value = value[strings.LastIndexByte(value, ' ')+1:]
	e.until("the key is known", func() bool {
		status, _, _ := e.get("/reports/monday", http.Header{"X-Api-Key": {value}})
		return status == 200
	})
	return value
}

func (e *example) passportKey() string {
	e.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		e.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		e.Fatal(err)
	}
	path := filepath.Join(e.dir, "passport.key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		e.Fatal(err)
	}
	return path
}

// copy copies the YAML files of a directory, with this example's ports.
func (e *example) copy(ports *strings.Replacer, from, to string) {
	e.Helper()
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil || len(files) == 0 {
		e.Fatal(from, err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		e.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			e.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), []byte(ports.Replace(string(text))), 0o600); err != nil {
			e.Fatal(err)
		}
	}
}

// run runs a program until the test ends.
func (e *example) run(path string, args ...string) {
	e.Helper()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait()
		if e.Failed() {
			e.Logf("%s:\n%s", filepath.Base(path), out.String())
		}
	})
}

func (e *example) do(cmd *exec.Cmd) {
	e.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		e.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// port returns an address that is free.
func (e *example) port() string {
	e.Helper()
	l, err := (&net.ListenConfig{}).Listen(e.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		e.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

func (e *example) until(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not in time: %s", what)
		}
	}
}

func (e *example) get(path string, header http.Header) (status int, body string, answer http.Header) {
	e.Helper()
	return fetch(e.T, "http://"+e.envoy, header, path)
}

// fetch sends a path as it is written; the zero status is no answer.
func fetch(t *testing.T, url string, header http.Header, path ...string) (status int, body string, answer http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if len(path) > 0 {
		r.URL.Opaque = path[0]
	}
	maps.Copy(r.Header, header)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// code returns the word that a problem has.
func code(body string) string {
	var problem struct{ Code string }
	_ = json.Unmarshal([]byte(body), &problem) // other bodies have none
	return problem.Code
}
