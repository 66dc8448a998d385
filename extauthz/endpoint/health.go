package endpoint

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health answers Envoy's health checks (gRPC Health Checking Protocol).
type health struct {
	healthv1.UnimplementedHealthServer
	ready func() error
}

// Check implements [healthv1.HealthServer].
func (h health) Check(_ context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	switch req.GetService() {
	case "", authv3.Authorization_ServiceDesc.ServiceName:
	default:
		return nil, status.Error(codes.NotFound, "no such service")
	}
	return &healthv1.HealthCheckResponse{Status: h.status()}, nil
}

func (h health) status() healthv1.HealthCheckResponse_ServingStatus {
	if h.ready() != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING
	}
	return healthv1.HealthCheckResponse_SERVING
}
