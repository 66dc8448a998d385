// Package rig runs a whole mesh on loopback from the real programs: a registry,
// a control plane, a gateway and services, each with its agent and its Envoy,
// and the demo shop's applications and issuer. The demo and the benchmark are
// built on it.
//
// Everything is in one temporary directory and on free ports, and
// [Rig.Close] ends all of it, also what a killed process left behind.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/examples/shop/outside"
)

// Config says what to run.
type Config struct {
	Programs Programs
	// Registry is "file" or "consul".
	Registry string
	// Documents of the mesh, in which the addresses of Gateways and Issuer stand
	// for those the rig chooses.
	Documents fs.FS
	Gateways  []Edge
	Issuer    string
	// Services that get one instance each, upstreams first.
	Services []string
	// Replace has pairs of what stands in the documents and what shall.
	Replace []string
}

// Edge is a gateway of the documents, and the address that it has there.
type Edge struct{ Name, Address string }

// Rig is a running mesh.
type Rig struct {
	Documents    *Documents
	Registry     Registry
	ControlPlane *Process
	// Gateway is the first of Gateways.
	Gateway  *Agent
	Gateways map[string]*Agent
	Issuer   *Issuer

	programs  Programs
	listen    netip.AddrPort
	http      netip.AddrPort
	outside   *outside.Authority
	dir       string
	ports     ports
	processes []*Process
	instances []*Instance
}

// Start runs the mesh and waits until each part says that it is ready. The
// caller closes the rig.
func Start(ctx context.Context, c Config) (*Rig, error) {
	dir, err := os.MkdirTemp("", "shop-")
	if err != nil {
		return nil, err
	}
	r := &Rig{programs: c.Programs, dir: dir, Gateways: map[string]*Agent{}}
	if err := r.start(ctx, c); err != nil {
		return nil, errors.Join(r.Explain(ctx, err), r.Close())
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context, c Config) error {
	for _, d := range []string{"log", "state", "registry", "tokens"} {
		if err := os.Mkdir(filepath.Join(r.dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := r.startIssuer(ctx); err != nil {
		return err
	}
	if err := r.startRegistry(ctx, c.Registry); err != nil {
		return err
	}
	if err := r.makeCertificates(c.Gateways); err != nil {
		return err
	}
	listen, err := r.writeDocuments(c)
	if err != nil {
		return err
	}
	if err := r.startControlPlane(ctx); err != nil {
		return err
	}
	for _, g := range c.Gateways {
		if err := r.startGateway(ctx, g.Name, listen[g.Name]); err != nil {
			return err
		}
	}
	r.Gateway = r.Gateways[c.Gateways[0].Name]
	for _, service := range c.Services {
		if _, err := r.StartInstance(ctx, service, service+"-1"); err != nil {
			return err
		}
	}
	return nil
}

// writeDocuments returns where each gateway listens.
func (r *Rig) writeDocuments(c Config) (map[string]netip.AddrPort, error) {
	listen := map[string]netip.AddrPort{}
	replace := append(slices.Clone(c.Replace), c.Issuer, r.Issuer.Address.String())
	for _, g := range c.Gateways {
		address, err := r.ports.next()
		if err != nil {
			return nil, err
		}
		listen[g.Name] = address
		replace = append(replace, g.Address, address.String())
	}
	var err error
	r.Documents, err = writeDocuments(filepath.Join(r.dir, "documents"), c.Documents, strings.NewReplacer(replace...))
	return listen, err
}

func (r *Rig) startControlPlane(ctx context.Context) error {
	var err error
	if r.listen, err = r.ports.next(); err != nil {
		return err
	}
	if r.http, err = r.ports.next(); err != nil {
		return err
	}
	args := []string{
		"serve", "--listen", r.listen.String(), "--http", r.http.String(),
		"--documents", r.Documents.Dir, "--registry", r.Registry.Flag(),
		"--run", r.RunDir(), "--state", r.stateDir("control-plane"),
	}
	if r.Registry.attests() {
		args = append(args, "--attest", "token,consul")
	}
	if r.ControlPlane, err = r.run("control-plane", r.programs.Chancery, args...); err != nil {
		return err
	}
	return r.trustControlPlane(ctx)
}

// Metrics returns what the control plane counts.
func (r *Rig) Metrics(ctx context.Context) (string, error) {
	data, err := call(ctx, http.DefaultClient, http.MethodGet, fmt.Sprintf("http://%s/metrics", r.http), nil)
	return string(data), err
}

// RunDir returns where the control plane has its admin socket.
func (r *Rig) RunDir() string { return filepath.Join(r.dir, "run") }

func (r *Rig) stateDir(name string) string { return filepath.Join(r.dir, "state", name) }

// Dir returns the rig's directory, which Close removes.
func (r *Rig) Dir() string { return r.dir }

// run starts a program under a name of its own.
func (r *Rig) run(name, path string, args ...string) (*Process, error) {
	return r.runFor("", name, path, args...)
}

// runFor does the same for an instance of a service, which may register it.
func (r *Rig) runFor(service, name, path string, args ...string) (*Process, error) {
	p := &Process{
		Name: name, path: path, args: args,
		env: environment(mark + filepath.Join(r.dir, name)),
		log: filepath.Join(r.dir, "log", name),
	}
	if r.Registry != nil {
		p.env = append(p.env, r.Registry.environment(service)...)
	}
	r.processes = append(r.processes, p)
	return p, p.Start()
}

// Logs returns the last words of everything that runs, or should.
func (r *Rig) Logs() string {
	var tails []string
	for _, p := range r.processes {
		state := "running"
		if !p.Running() {
			state = "ended"
		}
		tails = append(tails, fmt.Sprintf("--- %s (%s)\n%s", p.Name, state, p.Tail(15)))
	}
	return strings.Join(tails, "\n")
}

// ErrInterrupted is the error of whatever a context's end cut short.
var ErrInterrupted = errors.New("interrupted")

// Explain adds the logs to an error, unless it is ctx that ended.
func (r *Rig) Explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ErrInterrupted
	}
	return fmt.Errorf("%w\n%s", err, r.Logs())
}

// Trace returns what all logs say of one request.
func (r *Rig) Trace(requestID string) string {
	var lines []string
	for _, p := range r.processes {
		data, err := os.ReadFile(p.log)
		if err != nil || requestID == "" {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, requestID) {
				lines = append(lines, p.Name+": "+strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// Close ends whatever the rig started, and whatever that started, and removes
// the directory.
func (r *Rig) Close() error {
	inside := r.dir + string(filepath.Separator)
	err := endAll(func(value string) bool { return strings.HasPrefix(value, inside) })
	return errors.Join(err, os.RemoveAll(r.dir))
}
