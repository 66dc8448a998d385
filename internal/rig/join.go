package rig

import (
	"context"
	"path/filepath"
	"time"
)

// Token has an operator create a join token, and returns the file that it is
// in. Role is "service" or "gateway".
func (r *Rig) Token(ctx context.Context, role, name, instance string) (file string, err error) {
	file = filepath.Join(r.dir, "tokens", instance)
	_, err = r.Chancery(ctx, "token", "create", "--"+role, name, "--ttl", "10m", "--out", file, "--run", r.RunDir())
	return file, err
}

// joins returns how the agent of an instance proves who it is: by what it may
// do in the registry, or by a token.
func (r *Rig) joins(ctx context.Context, e Entry, registered bool) ([]string, error) {
	if registered && r.Registry.attests() {
		return []string{
			"--attest", "consul", "--consul-service-id", e.ID, "--trust-bundle", r.trustBundle(),
		}, r.Registry.announce(ctx, e)
	}
	token, err := r.Token(ctx, "service", e.Service, e.ID)
	return []string{"--join-token-file", token}, err
}

// trustBundle is the file that agents know the control plane by.
func (r *Rig) trustBundle() string { return filepath.Join(r.dir, "trust.pem") }

// trustControlPlane waits for the control plane, and keeps its trust bundle.
func (r *Rig) trustControlPlane(ctx context.Context) error {
	return Until(ctx, 15*time.Second, func(ctx context.Context) error {
		bundle, err := r.Chancery(ctx, "ca", "bundle", "--run", r.RunDir())
		if err != nil {
			return err
		}
		return replaceFile(r.trustBundle(), bundle)
	})
}
