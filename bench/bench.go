package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

// bench is a mesh under load.
type bench struct {
	*rig.Rig
	load rig.Load
}

// newBench returns once a request comes through all of the mesh.
func newBench(ctx context.Context, mesh *rig.Rig, rate int) (*bench, error) {
	token, err := mesh.Issuer.Token(ctx, nil)
	if err != nil {
		return nil, err
	}
	outside, err := mesh.TLS("")
	if err != nil {
		return nil, err
	}
	b := &bench{Rig: mesh, load: rig.Load{
		Rate:   rate,
		URL:    mesh.Gateway.URL("/orders/7"),
		TLS:    outside,
		Header: http.Header{"Authorization": {"Bearer " + token}},
	}}
	return b, rig.Until(ctx, 15*time.Second, b.serves)
}

// serves is an error unless a request comes through.
func (b *bench) serves(ctx context.Context) error {
	if s := b.load.Once(ctx); s.Fault != "" {
		return errors.New(s.Fault)
	}
	return nil
}

func (b *bench) measure(ctx context.Context, changes, repeats int) (f figures, err error) {
	printHeader()
	traffic := b.load.Start(ctx)
	err = errors.Join(b.registry(ctx, &f, changes), b.documents(ctx, &f, repeats), b.controlPlane(ctx))
	samples := traffic.Stop()
	f.Requests, f.Failed = len(samples), len(samples.Failed())
	if err == nil {
		err = b.envoy(ctx, &f)
	}
	if err == nil {
		err = b.agent(ctx, &f)
	}
	latency(samples).print("a request, while all that happened")
	if failed := samples.Failed(); len(failed) > 0 {
		fmt.Printf("\nthe first failure: %s\n%s\n", failed[0].Fault, b.Trace(failed[0].RequestID))
	}
	return f, err
}

func latency(samples rig.Samples) times {
	all := make(times, len(samples))
	for i, s := range samples {
		all[i] = s.Took
	}
	return all
}
