package rig

import (
	"fmt"
	"os"
	"os/exec"
)

// Programs are the paths of what a rig runs. Consul may be empty where the
// registry is a file.
type Programs struct{ Chancery, Shop, Envoy, Consul string }

// Find returns the path of a program: what the environment variable says, or
// the first of that name on PATH.
func Find(variable, name, hint string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: not on PATH and %s is not set: %s", name, variable, hint)
	}
	return path, nil
}
