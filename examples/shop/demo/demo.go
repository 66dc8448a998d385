// Package demo is the narrator of the shop: it runs the whole mesh, sends one
// request after the other, says in a line each what was sent, what was expected
// and what came, and judges it, not by the answer alone but by what reached the
// services behind it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	shopmesh "github.com/chancery-mesh/chancery/examples/shop/mesh"
	"github.com/chancery-mesh/chancery/internal/rig"
)

// Config says how to narrate.
type Config struct {
	Programs rig.Programs
	// Registry is "file" or "consul".
	Registry string
	// Keep leaves the shop running until the context ends.
	Keep   bool
	Out    io.Writer
	Colour bool
}

// Mesh is the configuration of the shop's mesh.
func Mesh(programs rig.Programs, registry string) rig.Config {
	return rig.Config{
		Programs: programs, Registry: registry,
		Documents: shopmesh.Documents, Issuer: shopmesh.Issuer,
		Gateways: []rig.Edge{{Name: "public", Address: shopmesh.Public}, {Name: "partners", Address: shopmesh.Partners}},
		Services: []string{"inventory", "payments", "orders"},
	}
}

// Run plays all scenarios. It returns an error if one of them failed, and ends
// all that it started.
func Run(ctx context.Context, c Config) (err error) {
	start := time.Now()
	fmt.Fprintf(c.Out, "Starting the shop: registry (%s), control plane, two gateways, three services with sidecars\n", c.Registry)
	r, err := rig.Start(ctx, Mesh(c.Programs, c.Registry))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	s, err := newShop(ctx, r)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "Running after %s\n\n", round(time.Since(start)))
	report := newReport(c.Out, c.Colour)
	if err := narrate(ctx, s, report); err != nil {
		return err
	}
	if report.failed > 0 {
		fmt.Fprintf(c.Out, "\n%s\n", r.Logs())
	}
	if c.Keep {
		invite(c.Out, s, c.Programs)
		<-ctx.Done()
	}
	fmt.Fprintf(c.Out, "\nTook %s\n", round(time.Since(start)))
	return report.summary()
}

func narrate(ctx context.Context, s *shop, r *report) error {
	for _, chapter := range chapters {
		r.chapter(chapter.title)
		for _, scene := range chapter.scenes {
			came, err := scene.play(ctx, s)
			if ctx.Err() != nil {
				return rig.ErrInterrupted
			}
			r.line(scene.sends, scene.expects, came, err)
		}
	}
	return nil
}
