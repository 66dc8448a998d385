package tls_test

import (
	"crypto/x509"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/mesh"
)

const passport = "the-passport-of-joe"

// example is a mesh on loopback: one real Envoy for the gateway, one for each
// sidecar, and applications. Its agents allow everything: what is refused, Envoy
// refuses.
type example struct {
	t            *testing.T
	mesh         *mesh.Mesh
	servers      *envoytest.Authority
	workloads    *envoytest.Authority
	applications map[string]*envoytest.Upstream
	taps         map[string]*tap
	envoys       map[string]*envoytest.Envoy
	agents       map[string]*envoytest.Agent
}

// run runs the documents of a directory, in which replace has pairs of what
// stands there and what shall.
func run(t *testing.T, dir string, replace ...string) *example {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := mesh.Parse(dir, []byte(strings.NewReplacer(replace...).Replace(string(text)))).Compile(mesh.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := &example{
		t: t, mesh: m, servers: envoytest.NewAuthority(t), workloads: envoytest.NewAuthority(t),
		applications: map[string]*envoytest.Upstream{}, taps: map[string]*tap{},
		envoys: map[string]*envoytest.Envoy{}, agents: map[string]*envoytest.Agent{},
	}
	for _, s := range m.Services {
		e.applications[s.Name] = envoytest.NewUpstream(t, nil)
		if s.HasSidecar() {
			e.start("service", s.Name, envoy.Sidecar(m, s))
		}
	}
	e.start("gateway", "public", envoy.Gateway(m, m.Gateway("public")))
	e.register()
	return e
}

// start starts the Envoy of a workload.
func (e *example) start(role, name string, resources []envoy.Resource) {
	e.t.Helper()
	agent := envoytest.NewAgent(e.t, name)
	anyPort := netip.MustParseAddrPort("127.0.0.1:0")
	local := envoy.Local{Inbound: anyPort, Outbound: anyPort}
	if application := e.applications[name]; application != nil {
		local.Application = application.Address()
	}
	for _, r := range resources {
		agent.Set(r.TypeURL, r.Name, envoy.Localize(r.Message, local))
	}
	for _, name := range envoy.EndpointNames(resources) {
		agent.Set(resourcev3.EndpointType, name, envoy.Endpoints(name, true, nil))
	}
	chain, key := envoytest.PEM(e.t, e.workloads.Certificate(spiffeID(role, name)))
	agent.Secret(envoy.KeyPair(envoy.SecretSVID, chain, key))
	bundle, err := envoy.TrustBundle(e.workloads.Roots(), e.workloads.CRL())
	if err != nil {
		e.t.Fatal(err)
	}
	agent.Secret(bundle)
	chain, key = envoytest.PEM(e.t, e.servers.Issue(func(c *x509.Certificate) { c.DNSNames = []string{"shop.example"} }))
	agent.Secret(envoy.KeyPair(envoy.CertificateSecret("shop"), chain, key))
	minted := ""
	if role == "gateway" {
		minted = passport
	}
	agent.Authorize(func(*authv3.CheckRequest) *authv3.CheckResponse { return envoytest.Allow(minted, nil) })
	agent.Push()
	e.agents[name] = agent
	e.envoys[name] = envoytest.Start(e.t, envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID: name, Cluster: name, Socket: agent.Socket, AdminSocket: filepath.Join(agent.Dir, "admin.sock"),
	}))
}

// register tells everybody where the services are: behind a tap each.
func (e *example) register() {
	e.t.Helper()
	for _, s := range e.mesh.Services {
		instance := discovery.Instance{ID: s.Name, Health: discovery.Passing}
		if s.HasSidecar() {
			e.taps[s.Name] = newTap(e.t, e.inbound(s.Name))
			instance.Mesh = e.taps[s.Name].address()
		} else {
			e.taps[s.Name] = newTap(e.t, e.applications[s.Name].Address().String())
			instance.Address = e.taps[s.Name].address()
		}
		for _, agent := range e.agents {
			agent.Set(resourcev3.EndpointType, s.Name, envoy.Endpoints(s.Name, s.HasSidecar(), []discovery.Instance{instance}))
		}
	}
	for _, agent := range e.agents {
		agent.Push()
	}
}

func (e *example) inbound(service string) string {
	e.t.Helper()
	return e.envoys[service].Address(envoy.ListenerInbound)
}

// calls has the application of a service call another one for each request,
// passing the Passport on.
func (e *example) calls(service, upstream, path string) {
	outbound := "http://" + e.envoys[service].Address(envoy.ListenerOutbound) + path
	e.applications[service].Handle(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, outbound, nil)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		request.Host = upstream
		request.Header.Set("Txn-Token", r.Header.Get("Txn-Token"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_ = response.Body.Close()
		w.WriteHeader(response.StatusCode)
	})
}

func spiffeID(role, name string) string { return "spiffe://shop.example/" + role + "/" + name }
