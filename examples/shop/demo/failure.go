package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var failures = []scene{
	{"the control plane is killed (-9) while traffic flows", "0 failed", controlPlaneKilled},
	{"meanwhile the gateway's Envoy is killed (-9) and restarted", "it serves within 1s", envoyKilled},
	{"the control plane comes back and orders.yaml changes", "ada gets 403, and 200 once it is undone", controlPlaneBack},
	{"the gateway's agent is killed (-9) while traffic flows", "≤ 1s of 503, no unchecked request", agentKilled},
}

func controlPlaneKilled(ctx context.Context, s *shop) (string, error) {
	traffic := s.traffic(ctx)
	err := s.ControlPlane.Kill()
	if err == nil {
		err = s.moreReach(ctx, 30)
	}
	return s.judge(traffic.Stop(), err)
}

// moreReach waits until that many more requests reached orders.
func (s *shop) moreReach(ctx context.Context, more int) error {
	before, err := s.Received(ctx, "orders")
	if err != nil {
		return err
	}
	return rig.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		now, err := s.Received(ctx, "orders")
		return errors.Join(err, expect(now.Total >= before.Total+more, "only %d requests reached orders", now.Total-before.Total))
	})
}

func envoyKilled(ctx context.Context, s *shop) (string, error) {
	if err := s.Gateway.KillEnvoy(); err != nil {
		return "", err
	}
	start := time.Now()
	err := s.eventually(ctx, 10*time.Second, request{path: "/orders/7", token: s.token}, http.StatusOK)
	took := time.Since(start)
	return fmt.Sprintf("serves after %s", round(took)), errors.Join(err, expect(took <= time.Second, "too late"))
}

func controlPlaneBack(ctx context.Context, s *shop) (string, error) {
	if err := s.ControlPlane.Start(); err != nil {
		return "", err
	}
	return documentChanged(ctx, s)
}

// agentKilled restarts the agent at once, as a supervisor would. Beside the
// good traffic, requests without a token knock all the time: none may come in.
func agentKilled(ctx context.Context, s *shop) (string, error) {
	knocking := rig.Load{Rate: 50, URL: s.Gateway.URL("/orders/unchecked"), TLS: s.tls, Header: http.Header{}}.Start(ctx)
	traffic := s.traffic(ctx)
	err := errors.Join(s.moreReach(ctx, 10), s.Gateway.Kill(), s.Gateway.Start(), s.Gateway.Ready(ctx, 10*time.Second), s.moreReach(ctx, 30))
	knocking.Stop()
	samples := traffic.Stop()
	received, receivedErr := s.Received(ctx, "orders")

	failed := samples.Failed()
	unchecked := received.Requests["GET /orders/unchecked"] + received.WithoutPassport
	return fmt.Sprintf("%d × 503 within %s, %d unchecked", len(failed), round(samples.Outage()), unchecked), errors.Join(err, receivedErr,
		expect(samples.Outage() <= time.Second, "too long"),
		expect(unchecked == 0, "unchecked requests reached orders"),
		only503(failed),
	)
}

func only503(failed rig.Samples) error {
	for _, sample := range failed {
		if sample.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("another failure: %s", sample.Fault)
		}
	}
	return nil
}
