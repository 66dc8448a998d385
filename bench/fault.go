package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

// while is how long traffic flows before and after a part of the mesh dies.
const while = 2 * time.Second

// controlPlane kills the control plane, and leaves it dead.
func (b *bench) controlPlane(ctx context.Context) error {
	return errors.Join(b.ControlPlane.Kill(), flow(ctx))
}

// flow lets traffic flow for a while.
func flow(ctx context.Context) error {
	select {
	case <-time.After(while):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// envoy kills the gateway's Envoy while the control plane is dead, and brings
// the control plane back.
func (b *bench) envoy(ctx context.Context, f *figures) error {
	traffic := b.load.Start(ctx)
	defer traffic.Stop()
	start := time.Now()
	if err := b.Gateway.KillEnvoy(); err != nil {
		return err
	}
	err := rig.Until(ctx, 10*time.Second, b.serves)
	took := time.Since(start)
	f.EnvoyServes = milliseconds(took)
	times{took}.print("a restarted Envoy serves, control plane dead")
	return errors.Join(err, b.ControlPlane.Start())
}

// agent kills the gateway's agent and starts it again, as a supervisor would,
// while requests without a token knock as often as good ones come.
func (b *bench) agent(ctx context.Context, f *figures) error {
	knock := b.load
	knock.URL, knock.Header = b.Gateway.URL("/orders/unchecked"), http.Header{}
	knocking, traffic := knock.Start(ctx), b.load.Start(ctx)
	err := errors.Join(flow(ctx), b.Gateway.Kill(), b.Gateway.Start(), b.Gateway.Ready(ctx, 10*time.Second), flow(ctx))
	knocking.Stop()
	outage := traffic.Stop().Outage()
	f.AgentOutage = milliseconds(outage)
	times{outage}.print("503 while the gateway's agent restarts")

	received, errReceived := b.Received(ctx, "orders")
	f.Unchecked = received.Requests["GET /orders/unchecked"] + received.WithoutPassport
	return errors.Join(err, errReceived)
}
