package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Agent is Chancery's process beside one Envoy, which the agent starts.
type Agent struct {
	*Process
	// Listen is where the Envoy takes requests from others.
	Listen netip.AddrPort
	// HTTP is where the agent tells of itself.
	HTTP netip.AddrPort
	// State is its state directory.
	State string

	mark  string
	admin *http.Client
}

func (r *Rig) startGateway(ctx context.Context, name string, listen netip.AddrPort) error {
	token, err := r.Token(ctx, "gateway", name, name)
	if err != nil {
		return err
	}
	a, err := r.runAgent("", name, listen, "gateway", "--name", name, "--certificates", r.CertificatesDir(), "--join-token-file", token)
	if err != nil {
		return err
	}
	r.Gateways[name] = a
	return a.Ready(ctx, 15*time.Second)
}

// runAgent starts the agent of a gateway, or of one instance of a service; args
// begin with the command.
func (r *Rig) runAgent(service, instance string, listen netip.AddrPort, args ...string) (*Agent, error) {
	http, err := r.ports.next()
	if err != nil {
		return nil, err
	}
	a := &Agent{Listen: listen, HTTP: http, State: r.stateDir(instance)}
	a.mark = filepath.Join(r.dir, "agent-"+instance)
	a.admin = unixClient(filepath.Join(a.State, "admin.sock"))
	args = append(args, "--instance", instance, "--control-plane", r.listen.String(),
		"--state", a.State, "--http", http.String(),
		"--", r.programs.Envoy, "--concurrency", "1", "--log-level", "warn")
	a.Process, err = r.runFor(service, "agent-"+instance, r.programs.Chancery, args...)
	return a, err
}

// Agents returns the agents of all gateways and instances.
func (r *Rig) Agents() []*Agent {
	agents := slices.Collect(maps.Values(r.Gateways))
	for _, i := range r.instances {
		agents = append(agents, i.Agent)
	}
	return agents
}

// URL returns where a path of a gateway is.
func (a *Agent) URL(path string) string { return "https://" + a.Listen.String() + path }

// Ready waits until the agent and its Envoy can take traffic.
func (a *Agent) Ready(ctx context.Context, within time.Duration) error {
	err := Until(ctx, within, func(ctx context.Context) error {
		_, err := call(ctx, http.DefaultClient, http.MethodGet, fmt.Sprintf("http://%s/readyz", a.HTTP), nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", a.Name, err)
	}
	return nil
}

// Admin asks Envoy's admin interface.
func (a *Agent) Admin(ctx context.Context, path string) (string, error) {
	data, err := call(ctx, a.admin, http.MethodGet, "http://envoy"+path, nil)
	return string(data), err
}

// KillEnvoy ends the agent's Envoy as a crash would.
func (a *Agent) KillEnvoy() error {
	processes, err := marked(func(value string) bool { return value == a.mark })
	if err != nil {
		return err
	}
	killed := 0
	for _, p := range processes {
		if p.Pid == a.cmd.Process.Pid {
			continue
		}
		if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill the Envoy of %s: %w", a.Name, err)
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("kill the Envoy of %s: it has none", a.Name)
	}
	return nil
}
