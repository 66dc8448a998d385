package breaker_test

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestThresholds(t *testing.T) {
	t.Parallel()
	get := func(cb *mesh.CircuitBreaker) *clusterv3.CircuitBreakers_Thresholds {
		return breaker.Thresholds(cb).GetThresholds()[0]
	}
	all := get(&mesh.CircuitBreaker{
		MaxConnections: new(uint32(1)), MaxPending: new(uint32(2)),
		MaxRequests: new(uint32(3)), MaxRetries: new(uint32(0)),
	})
	for i, got := range []*wrapperspb.UInt32Value{all.MaxConnections, all.MaxPendingRequests, all.MaxRequests, all.MaxRetries} {
		if want := []uint32{1, 2, 3, 0}[i]; got == nil || got.GetValue() != want {
			t.Errorf("limit %d is %v, want %d", i, got, want)
		}
	}
	for name, none := range map[string]*clusterv3.CircuitBreakers_Thresholds{"nil": get(nil), "empty": get(&mesh.CircuitBreaker{})} {
		if none.MaxConnections != nil || none.MaxPendingRequests != nil || none.MaxRequests != nil || none.MaxRetries != nil {
			t.Errorf("%s: %v, want Envoy's own limits", name, none)
		}
	}
}

func TestOutlierDetection(t *testing.T) {
	t.Parallel()
	if got := breaker.OutlierDetection(nil); got != nil {
		t.Errorf("without breaker: %v", got)
	}
	if got := breaker.OutlierDetection(&mesh.CircuitBreaker{EjectFor: time.Second}); got != nil {
		t.Errorf("without a number of failures: %v", got)
	}
	got := breaker.OutlierDetection(&mesh.CircuitBreaker{
		Consecutive5xx: new(uint32(5)), EjectFor: 500 * time.Millisecond, MaxEjectFor: time.Minute,
	})
	if got.GetInterval().AsDuration() > 500*time.Millisecond {
		t.Errorf("an instance that was ejected for 500ms waits %v longer", got.GetInterval().AsDuration())
	}
	if got.GetMaxEjectionPercent().GetValue() != 100 {
		t.Error("not all instances may be ejected")
	}
}

func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		retries  *mesh.Retries
		on       string
		attempts uint32
		perTry   time.Duration
	}{
		{"none written", nil, "connect-failure,refused-stream,reset-before-request,retriable-headers", 2, 0},
		{"as written", &mesh.Retries{Attempts: 5, On: []string{"5xx", "reset"}, PerTry: time.Second}, "5xx,reset", 5, time.Second},
		{"never", &mesh.Retries{On: []string{"5xx"}}, "5xx", 0, 0},
		{"through a sidecar", &mesh.Retries{Attempts: 1, On: []string{"connect-failure"}}, "connect-failure,retriable-headers", 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := breaker.RetryPolicy(tt.retries)
			if got.GetRetryOn() != tt.on || got.GetNumRetries().GetValue() != tt.attempts || got.GetPerTryTimeout().AsDuration() != tt.perTry {
				t.Errorf("retries %v", got)
			}
			if err := got.ValidateAll(); err != nil {
				t.Error(err)
			}
		})
	}
}
