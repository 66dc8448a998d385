package endpoint_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/extauthz/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source answers when it is told to.
type source struct {
	authv3.UnimplementedAuthorizationServer
	begun, answer chan struct{}
	fault         error
}

func (s *source) Register(r grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(r, s) }

func (s *source) Run(ctx context.Context) error {
	if s.fault == nil {
		<-ctx.Done()
	}
	return s.fault
}

func (s *source) Ready() error { return nil }

func (s *source) Handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /more", func(http.ResponseWriter, *http.Request) {})
}

func (s *source) Check(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if s.begun != nil {
		s.begun <- struct{}{}
		select {
		case <-s.answer:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &authv3.CheckResponse{}, nil
}

func config(listen string) endpoint.Config {
	return endpoint.Config{Listen: listen, Source: &source{}, Logger: slog.New(slog.DiscardHandler)}
}

// run runs a server until stop is called, which returns how it ended.
func run(t *testing.T, c endpoint.Config) (s *endpoint.Server, stop func() error) {
	t.Helper()
	s, err := endpoint.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return s, func() error {
		cancel()
		return <-ended
	}
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "authz") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{}, grpc.WaitForReady(true))
	return err
}

// To a check of any size there is an answer: an Envoy that gets an error might let
// the request pass.
func TestLargeChecks(t *testing.T) {
	t.Parallel()
	c := config("unix:" + socket(t))
	_, stop := run(t, c)
	client := authv3.NewAuthorizationClient(dial(t, c.Listen))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{RawBody: make([]byte, 40<<20)}},
	}}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for listen, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "127.5.0.1:0": true, "unix:/tmp/s": true, "[::ffff:127.0.0.1]:0": true,
		"0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, ":9191": false, "localhost:9191": false, "": false, "unix:": false,
		"unix:@abstract": false, "127.0.0.1": false, "127.0.0.1:99999": false,
	} {
		if _, err := endpoint.New(config(listen)); (err == nil) != ok {
			t.Errorf("%q: %v", listen, err)
		}
	}
	open := config("0.0.0.0:0")
	if _, err := endpoint.New(open); !errors.Is(err, endpoint.ErrExposed) {
		t.Error(err)
	}
	open.AnyAddress = true
	if _, err := endpoint.New(open); err != nil {
		t.Error(err)
	}
	for _, mode := range []os.FileMode{0o666, 0o777, 0o602} {
		c := config("unix:/tmp/s")
		c.SocketMode = mode
		if _, err := endpoint.New(c); !errors.Is(err, endpoint.ErrExposed) {
			t.Errorf("%o: %v", mode, err)
		}
	}
	for _, spoil := range []func(*endpoint.Config){
		func(c *endpoint.Config) { c.Source = nil }, func(c *endpoint.Config) { c.Logger = nil },
	} {
		c := config("127.0.0.1:0")
		spoil(&c)
		if _, err := endpoint.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	path := socket(t)
	c := config("unix:" + path)
	c.SocketMode = 0o660
	_, stop := run(t, c)
	conn := dial(t, "unix:"+path)
	if err := check(t, conn); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
	// A port that is taken.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := endpoint.New(config(l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a port that is taken is served")
	}
}

// growing becomes ready.
type growing struct {
	*source
	ready atomic.Bool
}

func (g *growing) Ready() error {
	if g.ready.Load() {
		return nil
	}
	return errors.New("no policy yet")
}

func TestHealth(t *testing.T) {
	t.Parallel()
	path := socket(t)
	c := config("unix:" + path)
	c.Gatherer = prometheus.NewRegistry()
	subject := &growing{source: &source{}}
	c.Source = subject
	s, stop := run(t, c)
	conn := dial(t, "unix:"+path)
	expect := func(want healthv1.HealthCheckResponse_ServingStatus, code int) {
		t.Helper()
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			resp, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
			if err != nil || resp.GetStatus() != want {
				t.Errorf("%q: %v, %v", service, resp, err)
			}
		}
		for path, want := range map[string]int{"/healthz": 200, "/readyz": code, "/metrics": 200, "/more": 200, "/": 404} {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s: %d", path, w.Code)
			}
			if body, _ := io.ReadAll(w.Body); w.Code == 503 && !strings.Contains(string(body), "no policy yet") {
				t.Errorf("%s: %s", path, body)
			}
		}
	}
	expect(healthv1.HealthCheckResponse_NOT_SERVING, 503)
	subject.ready.Store(true)
	expect(healthv1.HealthCheckResponse_SERVING, 200)
	_, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "other"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Checks under way end before the server does, unless they take too long.
func TestStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drain   time.Duration
		answers bool
	}{"in time": {10 * time.Second, true}, "too long": {50 * time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := socket(t)
			d := &source{begun: make(chan struct{}), answer: make(chan struct{})}
			config := config("unix:" + path)
			config.Source, config.Drain = d, c.drain
			_, stop := run(t, config)
			conn := dial(t, "unix:"+path)
			result := make(chan error, 1)
			go func() { result <- check(t, conn) }()
			<-d.begun
			stopped := make(chan error, 1)
			go func() { stopped <- stop() }()
			if c.answers {
				close(d.answer)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if err := <-result; (err == nil) != c.answers {
				t.Errorf("the check under way: %v", err)
			}
		})
	}
}

// A source that fails ends the endpoint.
func TestSourceFails(t *testing.T) {
	t.Parallel()
	path := socket(t)
	c := config("unix:" + path)
	fault := errors.New("policy.rego:1:1: no")
	c.Source = &source{fault: fault}
	s, err := endpoint.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, fault) {
		t.Error(err)
	}
}
