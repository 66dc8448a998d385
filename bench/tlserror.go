package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var (
	envoyTLSError = regexp.MustCompile(`(?m)^(\S*ssl\.(?:connection_error|fail_verify\w*)): (\d+)$`)
	// handshakeRefused counts what came of agents at the control plane.
	handshakeRefused = regexp.MustCompile(`(?m)^(chancery_connections_refused_total) (\d+)$`)
)

// counters are what programs count, each by its program's name and its own.
type counters map[string]int

// tlsErrors returns what all Envoys and the control plane count of connections
// that TLS refused.
func tlsErrors(ctx context.Context, mesh *rig.Rig) (counters, error) {
	c := counters{}
	for _, agent := range mesh.Agents() {
		stats, err := agent.Admin(ctx, "/stats?filter=ssl")
		if err == nil {
			err = c.read(agent.Name, envoyTLSError, stats)
		}
		if err != nil {
			return nil, err
		}
	}
	metrics, err := mesh.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return c, c.read(mesh.ControlPlane.Name, handshakeRefused, metrics)
}

// read takes the counters that a pattern finds in what a program tells.
func (c counters) read(program string, pattern *regexp.Regexp, text string) error {
	matches := pattern.FindAllStringSubmatch(text, -1)
	if len(matches) == 0 {
		return fmt.Errorf("%s tells of no TLS: %s", program, text)
	}
	for _, m := range matches {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
		c[program+" "+m[1]] = n
	}
	return nil
}

// since returns how much was counted since then. A counter that vanished or
// fell has counted what nobody knows.
func (c counters) since(before counters) (sum int, err error) {
	for name, was := range before {
		if now, ok := c[name]; !ok || now < was {
			return 0, fmt.Errorf("%s was %d and is %d (there: %t): its program was started again, or lost it", name, was, now, ok)
		}
	}
	for name, now := range c {
		sum += now - before[name]
	}
	return sum, nil
}
