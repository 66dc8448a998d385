package consultest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/internal/tooltest"
)

// Server is a real Consul.
type Server struct {
	Client *api.Client
	config *api.Config
}

// Start runs a Consul, which [tooltest.Path] finds, in development mode until
// the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, "", "")
}

// start runs a Consul with further members of its configuration, "" or ", …",
// and returns it with a token.
func start(t testing.TB, more, token string) *Server {
	t.Helper()
	address := run(t, tooltest.Path(t, "consul", "run `make test-all`"), more)
	config := api.DefaultConfig()
	config.Address, config.Token = address, token
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Client: client, config: config}
	t.Cleanup(config.Transport.CloseIdleConnections)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if leader, err := client.Status().Leader(); err == nil && leader != "" {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("consul found no leader within 30s")
		}
	}
}

// run starts a development agent and returns its HTTP address.
func run(t testing.TB, path, more string) string {
	t.Helper()
	ports := freePorts(t, 3)
	dir := t.TempDir()
	config := fmt.Sprintf(`{
		"ports": {"http": %d, "server": %d, "serf_lan": %d,
			"serf_wan": -1, "dns": -1, "grpc": -1, "grpc_tls": -1, "https": -1},
		"data_dir": %q, "disable_update_check": true%s}`, ports[0], ports[1], ports[2], dir, more)
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-log-level=err", "-config-file="+file)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("consul said:\n%s", out.String())
		}
	})
	return fmt.Sprintf("127.0.0.1:%d", ports[0])
}

// freePorts returns loopback ports that were free a moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// Config returns how to reach the server.
func (s *Server) Config() *api.Config { return s.config }

// Set makes these the instances of a service.
func (s *Server) Set(t testing.TB, service string, instances ...discovery.Instance) {
	t.Helper()
	have, _, err := s.Client.Catalog().Service(service, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := map[string]*api.CatalogService{}
	for _, h := range have {
		gone[h.Node+"/"+h.ServiceID] = h
	}
	for _, i := range instances {
		e := Entry(service, i)
		delete(gone, e.Node.Node+"/"+e.Service.ID)
		s.register(t, e)
	}
	for _, g := range gone {
		d := &api.CatalogDeregistration{Node: g.Node, ServiceID: g.ServiceID}
		if _, err := s.Client.Catalog().Deregister(d, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *Server) register(t testing.TB, e *api.ServiceEntry) {
	t.Helper()
	r := &api.CatalogRegistration{
		Node: e.Node.Node, Address: e.Node.Address, Service: e.Service, Checks: e.Checks,
	}
	if _, err := s.Client.Catalog().Register(r, nil); err != nil {
		t.Fatal(err)
	}
}
