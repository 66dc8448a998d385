// Command bench measures how fast and how quietly a whole mesh follows change:
// from a write to the registry until Envoy routes by it, and through the deaths
// of its parts, all while requests flow at a fixed rate that no client repeats.
//
// It prints tables for people and, as its last line, all figures as one JSON
// object. It exits with 1 if one of them is not what Chancery promises.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/chancery-mesh/chancery/examples/shop/demo"
	"github.com/chancery-mesh/chancery/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	registry := flag.String("registry", "", "consul or file (default consul if there is one)")
	changes := flag.Int("changes", 210, "writes to the registry that are timed")
	repeats := flag.Int("repeats", 20, "changes of a document that are timed, of each kind")
	rate := flag.Int("rate", 100, "requests per second meanwhile")
	rotates := flag.Bool("rotation", false, "measure requests while certificates, authorities and keys rotate instead")
	flag.Parse()

	programs, cleanup, err := programs(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	if *registry == "" {
		*registry = choose(programs)
	}
	config := demo.Mesh(programs, *registry)
	if *rotates {
		fmt.Printf("registry %s, %d requests/s\n\n", *registry, rotationRate)
		return rotation(ctx, config)
	}
	fmt.Printf("registry %s, %d requests/s\n\n", *registry, *rate)

	mesh, err := rig.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mesh.Close()) }()
	b, err := newBench(ctx, mesh, *rate)
	if err != nil {
		return err
	}
	f, err := b.measure(ctx, *changes, *repeats)
	if err != nil {
		return mesh.Explain(ctx, err)
	}
	f.Registry = *registry
	promises := f.promises()
	if promises != nil {
		fmt.Println(mesh.Logs())
	}
	line, err := json.Marshal(f)
	fmt.Printf("\n%s\n", line)
	return errors.Join(err, promises)
}

// programs finds what is to be measured, and builds what is not named by the
// environment.
func programs(ctx context.Context) (p rig.Programs, cleanup func() error, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return p, nil, err
	}
	cleanup = func() error { return os.RemoveAll(dir) }
	for variable, path := range map[string]string{"CHANCERY": "cmd/chancery", "SHOP": "examples/shop"} {
		if os.Getenv(variable) != "" {
			continue
		}
		program := filepath.Join(dir, filepath.Base(path))
		build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/chancery-mesh/chancery/"+path)
		build.Stderr = os.Stderr
		if err := errors.Join(build.Run(), os.Setenv(variable, program)); err != nil {
			return p, nil, errors.Join(fmt.Errorf("build %s: %w", path, err), cleanup())
		}
	}
	p, err = rig.FindPrograms(true)
	if p.Consul == "" && p.Envoy != "" && p.Chancery != "" {
		err = nil
	}
	return p, cleanup, err
}

func choose(p rig.Programs) string {
	if p.Consul != "" {
		return "consul"
	}
	fmt.Println("There is no Consul on PATH, nor does CONSUL_PATH name one: the embedded registry is measured instead.")
	return "file"
}
