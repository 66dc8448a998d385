package envoy_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

type instance = discovery.Instance

const trustDomain = "shop.example"

// anyPort lets the kernel choose.
var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// rig is one real Envoy with its agent.
type rig struct {
	*envoytest.Envoy
	agent *envoytest.Agent
}

// start starts an Envoy with resources, and where the services are that they
// lead to. Every check is allowed.
func start(t *testing.T, resources []envoy.Resource, local envoy.Local, m *mesh.Mesh, instances map[string][]instance, prepare ...func(*envoytest.Agent)) *rig {
	t.Helper()
	agent := envoytest.NewAgent(t, "test")
	for _, r := range resources {
		agent.Set(r.TypeURL, r.Name, envoy.Localize(r.Message, local))
	}
	for _, name := range envoy.EndpointNames(resources) {
		agent.Set(resourcev3.EndpointType, name, envoy.Endpoints(name, m.Service(name).HasSidecar(), instances[name]))
	}
	agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return envoytest.Allow("passport", nil) })
	for _, p := range prepare {
		p(agent)
	}
	agent.Push()
	bootstrap := envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID:      "test",
		Cluster:     "test",
		Socket:      agent.Socket,
		AdminSocket: filepath.Join(agent.Dir, "admin.sock"),
	})
	return &rig{Envoy: envoytest.Start(t, bootstrap), agent: agent}
}

// startGateway starts the gateway "public" of m.
func startGateway(t *testing.T, m *mesh.Mesh, instances map[string][]instance) *rig {
	t.Helper()
	return start(t, envoy.Gateway(m, m.Gateway("public")), envoy.Local{Inbound: anyPort}, m, instances)
}

// workload serves the secrets of a workload.
func workload(t testing.TB, authority *envoytest.Authority, spiffeID string) func(*envoytest.Agent) {
	t.Helper()
	return func(agent *envoytest.Agent) {
		agent.Secret(keyPair(t, envoy.SecretSVID, authority.Certificate(spiffeID)))
		agent.Secret(trustBundle(t, authority.Roots(), authority.CRL()))
	}
}

func keyPair(t testing.TB, name string, certificate tls.Certificate) *tlsv3.Secret {
	t.Helper()
	chain, key := envoytest.PEM(t, certificate)
	return envoy.KeyPair(name, chain, key)
}

func trustBundle(t testing.TB, roots []byte, crls ...[]byte) *tlsv3.Secret {
	t.Helper()
	secret, err := envoy.TrustBundle(roots, slices.Concat(crls...))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// plain are instances without a sidecar.
func plain(upstreams ...*envoytest.Upstream) []instance {
	var instances []instance
	for _, u := range upstreams {
		instances = append(instances, instance{
			ID:      u.Address().String(),
			Address: u.Address(),
			Weight:  1,
			Health:  discovery.Passing,
		})
	}
	return instances
}

// meshed are instances whose sidecar listens there.
func meshed(addresses ...netip.AddrPort) []instance {
	var instances []instance
	for _, a := range addresses {
		instances = append(instances, instance{ID: a.String(), Mesh: a, Weight: 1, Health: discovery.Passing})
	}
	return instances
}

func addrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// client is patient: it is Envoy that gives up first.
var client = &http.Client{
	Timeout:   20 * time.Second,
	Transport: &http.Transport{DisableCompression: true},
}

// get sends a GET request with headers given as name, value, ….
func get(t *testing.T, url string, headers ...string) answer {
	t.Helper()
	return send(t, http.MethodGet, url, headers...)
}

func send(t *testing.T, method, url string, headers ...string) answer {
	t.Helper()
	return sendBy(t, client, method, url, headers...)
}

func sendBy(t *testing.T, client *http.Client, method, url string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// await tries until what it waits for has come.
func await(t *testing.T, what string, try func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !try(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// overHTTP2 is a client that speaks HTTP/2 in the clear.
var overHTTP2 = func() *http.Client {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: client.Timeout, Transport: &http.Transport{DisableCompression: true, Protocols: protocols}}
}()

// sendBody sends a POST request. Of one that is too large, the answer may come
// before all is sent.
func sendBody(t *testing.T, client *http.Client, url string, body io.Reader, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

func newSigningKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
