package rego_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"                  // named in envoy.yaml
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"                     // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3" // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"                          // the same
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/chancery-mesh/chancery/extauthz/endpoint"
	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/internal/envoytest"
)

// source decides by a directory, as that of the command does.
type source struct {
	*opaenvoy.Server
	loader *rego.Loader
	dir    string
}

func (s source) Run(ctx context.Context) error {
	return s.loader.Watch(ctx, s.dir, rego.Version(false))
}

func (source) Handle(*http.ServeMux) {}

// decide runs what `chancery authz --rego DIR` runs, until the test ends.
func decide(t *testing.T, socket, dir string, config opaenvoy.Config) (stop func()) {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := opaenvoy.New(config)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := rego.NewLoader(rego.LoaderConfig{Query: "data.envoy.authz.allow", Use: server.SetQuery, Logger: config.Logger})
	if err != nil {
		t.Fatal(err)
	}
	pdp, err := endpoint.New(endpoint.Config{
		Listen: "unix:" + socket, Source: source{server, loader, dir}, Logger: config.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pdp.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(10 * time.Second); server.Ready() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no policy")
		}
	}
	return stop
}

// start runs envoy.yaml in a directory of its own, on free ports.
func start(t *testing.T, socket string, upstream *envoytest.Upstream) *envoytest.Envoy {
	t.Helper()
	text, err := os.ReadFile("envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"{socket_address: {address: 127.0.0.1, port_value: 9901}}", fmt.Sprintf("{pipe: {path: %s}}", filepath.Join(filepath.Dir(socket), "admin.sock")),
		"port_value: 8080", "port_value: 0", "port_value: 8081", fmt.Sprintf("port_value: %d", upstream.Address().Port()), "path: authz.sock", "path: "+socket,
	).Replace(string(text))
	var value any
	if err := yaml.Load([]byte(config), &value); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var bootstrap bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(data, &bootstrap); err != nil {
		t.Fatal(err)
	}
	return envoytest.Start(t, &bootstrap)
}

// rig is the example at work.
type rig struct {
	t        *testing.T
	url      string
	upstream *envoytest.Upstream
	stop     func()
}

func run(t *testing.T, dir string, config opaenvoy.Config) *rig {
	t.Helper()
	envoytest.Path(t)
	home, err := os.MkdirTemp("", "rego") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	socket := filepath.Join(home, "authz.sock")
	stop := decide(t, socket, dir, config)
	upstream := envoytest.NewUpstream(t, nil)
	return &rig{t, "http://" + start(t, socket, upstream).Address("web"), upstream, stop}
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (r *rig) call(method, path, body string, headers map[string]string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	// As it is written here, byte for byte.
	req.URL.RawPath, req.URL.RawQuery, _ = strings.Cut(path, "?")
	if req.URL.Path, err = url.PathUnescape(req.URL.RawPath); err != nil {
		r.t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

const (
	ada = "Basic YWRhOng="
	joe = "Basic am9lOng="
)

func order(authorization string) map[string]string {
	return map[string]string{"authorization": authorization, "content-type": "application/json", "x-user": "root"}
}

func TestExample(t *testing.T) {
	r := run(t, "policy", opaenvoy.Config{})
	large := `{"amount": 1, "note": "` + strings.Repeat("x", 9000) + `"}`
	for name, c := range map[string]struct {
		method, path, body string
		headers            map[string]string
		status             int
	}{
		"look":                {"GET", "/orders/1", "", nil, 200},
		"look closer":         {"GET", "/orders/1?details=1", "", nil, 403},
		"elsewhere":           {"GET", "/invoices", "", nil, 403},
		"order":               {"POST", "/orders", `{"amount": 1000}`, order(ada), 200},
		"order too much":      {"POST", "/orders", `{"amount": 1001}`, order(ada), 403},
		"a trainee":           {"POST", "/orders", `{"amount": 10}`, order(joe), 200},
		"a trainee, too much": {"POST", "/orders", `{"amount": 11}`, order(joe), 403},
		"nobody":              {"POST", "/orders", `{"amount": 1}`, order(""), 403},
		"a large body":        {"POST", "/orders", large, order(ada), 403},
		"two amounts":         {"POST", "/orders", `{"amount": 1, "amount": 9999}`, order(ada), 400},
		"no JSON":             {"POST", "/orders", `amount`, order(ada), 400},
		"two slashes":         {"GET", "//orders/1", "", nil, 400},
		"dots":                {"GET", "/orders/../invoices", "", nil, 400},
		"an encoded slash":    {"GET", "/orders%2f1", "", nil, 400},
	} {
		before := len(r.upstream.Received())
		got := r.call(c.method, c.path, c.body, c.headers)
		passed := len(r.upstream.Received()) - before
		if got.status != c.status || (passed == 1) != (c.status == 200) {
			t.Errorf("%s: %d, want %d; %d requests passed\n%s", name, got.status, c.status, passed, got.body)
		}
		if c.status == 403 && (got.body != `{"error": "not for you"}` || got.header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: body %q, headers %v", name, got.body, got.header)
		}
	}
	got := r.call("POST", "/orders?debug=1&x=y&by=me", `{"amount": 1}`, order(ada))
	if by := got.header.Get("x-decided-by"); by != "rego" {
		t.Errorf("x-decided-by %q", by)
	}
	all := r.upstream.Received()
	last := all[len(all)-1]
	if last.Target != "/orders?by=clerk&x=y" || last.Header.Get("Authorization") != "" || strings.Join(last.Header.Values("x-user"), ",") != "ada" {
		t.Errorf("what came to the service: %s %v", last.Target, last.Header)
	}

	// Whoever decides is gone: nothing passes.
	r.stop()
	before := len(all)
	if got := r.call("GET", "/orders/1", "", nil); got.status != 503 || len(r.upstream.Received()) != before {
		t.Errorf("without a decision: %d", got.status)
	}
}
