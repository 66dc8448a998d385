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
	"os"
	"path/filepath"
	"strings"
)

// Config says what to run.
type Config struct {
	Programs Programs
	// Registry is "file" or "consul".
	Registry string
	// Documents of the mesh, in which Gateway and Issuer are the addresses
	// that stand for those the rig chooses.
	Documents       fs.FS
	Gateway, Issuer string
	// Services that get one instance each, upstreams first.
	Services []string
}

// Rig is a running mesh.
type Rig struct {
	Documents    *Documents
	Registry     Registry
	ControlPlane *Process
	Gateway      *Agent
	Issuer       *Issuer

	programs  Programs
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
	r := &Rig{programs: c.Programs, dir: dir}
	if err := r.start(ctx, c); err != nil {
		return nil, errors.Join(r.Explain(ctx, err), r.Close())
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context, c Config) error {
	for _, d := range []string{"log", "state", "registry"} {
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
	gateway, err := r.ports.next()
	if err != nil {
		return err
	}
	r.Documents, err = writeDocuments(filepath.Join(r.dir, "documents"), c.Documents,
		strings.NewReplacer(c.Gateway, gateway.String(), c.Issuer, r.Issuer.Address.String()))
	if err != nil {
		return err
	}
	if err := r.startControlPlane(); err != nil {
		return err
	}
	if err := r.startGateway(ctx, gateway); err != nil {
		return err
	}
	for _, service := range c.Services {
		if _, err := r.StartInstance(ctx, service, service+"-1"); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rig) startControlPlane() error {
	var err error
	r.ControlPlane, err = r.run("control-plane", r.programs.Chancery, "serve",
		"--documents", r.Documents.Dir, "--registry", r.Registry.Flag(),
		"--run", r.RunDir(), "--state", r.stateDir("control-plane"))
	return err
}

// RunDir returns where the control plane keeps its sockets.
func (r *Rig) RunDir() string { return filepath.Join(r.dir, "run") }

func (r *Rig) stateDir(name string) string { return filepath.Join(r.dir, "state", name) }

// Dir returns the rig's directory, which Close removes.
func (r *Rig) Dir() string { return r.dir }

// run starts a program under a name of its own.
func (r *Rig) run(name, path string, args ...string) (*Process, error) {
	p := &Process{
		Name: name, path: path, args: args,
		env: environment(mark + filepath.Join(r.dir, name)),
		log: filepath.Join(r.dir, "log", name),
	}
	if r.Registry != nil {
		p.env = append(p.env, r.Registry.environment()...)
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
