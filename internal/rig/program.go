package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Programs are the paths of what a rig runs. Consul may be empty where the
// registry is a file.
type Programs struct{ Chancery, Shop, Envoy, Consul string }

// FindPrograms finds each program by its environment variable (CHANCERY, SHOP,
// ENVOY_PATH, CONSUL_PATH), else on PATH. Shop is left empty if it is not found
// and Consul if it is not wanted.
func FindPrograms(consul bool) (Programs, error) {
	shop, _ := find("SHOP", "shop")
	chancery, errChancery := find("CHANCERY", "chancery")
	envoy, errEnvoy := find("ENVOY_PATH", "envoy")
	p := Programs{Chancery: chancery, Shop: shop, Envoy: envoy}
	var errConsul error
	if consul {
		p.Consul, errConsul = find("CONSUL_PATH", "consul")
	}
	return p, errors.Join(errChancery, errEnvoy, errConsul)
}

func find(variable, name string) (string, error) {
	path, err := exec.LookPath(cmp.Or(os.Getenv(variable), name))
	if err != nil {
		return "", fmt.Errorf("find %s, by %s or on PATH: %w", name, variable, err)
	}
	return path, nil
}

// Chancery runs one command of the CLI and returns what it printed.
func (r *Rig) Chancery(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, r.programs.Chancery, args...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("chancery %v: %w: %s", args, err, out)
	}
	return string(out), nil
}
