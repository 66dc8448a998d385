package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// figures are what is measured, in milliseconds where the name says so.
type figures struct {
	Registry string `json:"registry"`
	Changes  int    `json:"changes"`
	P50      ms     `json:"consul_to_envoy_p50_ms"`
	P90      ms     `json:"consul_to_envoy_p90_ms"`
	P99      ms     `json:"consul_to_envoy_p99_ms"`
	Max      ms     `json:"consul_to_envoy_max_ms"`

	ClusterAdded        ms `json:"cluster_added_p90_ms"`
	ClusterAddedMax     ms `json:"cluster_added_max_ms"`
	ThresholdChanged    ms `json:"threshold_changed_p90_ms"`
	ThresholdChangedMax ms `json:"threshold_changed_max_ms"`

	// Requests while the registry and documents changed and the control plane
	// died.
	Requests int `json:"requests"`
	Failed   int `json:"failed_requests"`

	EnvoyServes ms  `json:"envoy_restarted_serves_ms"`
	AgentOutage ms  `json:"agent_killed_503_ms"`
	Unchecked   int `json:"unchecked_requests"`
}

// ms is a time in milliseconds, in steps of a tenth.
type ms float64

func milliseconds(d time.Duration) ms {
	return ms(d.Round(100*time.Microsecond)) / ms(time.Millisecond)
}

func (m ms) String() string { return fmt.Sprintf("%.1f", float64(m)) }

// promises says which of Chancery's promises the figures break.
func (f figures) promises() error {
	var broken []error
	for _, p := range []struct {
		what     string
		is, most ms
	}{
		{"registry to Envoy, p50", f.P50, 50},
		{"registry to Envoy, p99", f.P99, 150},
		{"a cluster added, p90", f.ClusterAdded, 200},
		{"a threshold changed, p90", f.ThresholdChanged, 200},
		{"a restarted Envoy serves", f.EnvoyServes, 1000},
		{"503 while an agent is away", f.AgentOutage, 1000},
	} {
		if p.is > p.most {
			broken = append(broken, fmt.Errorf("%s: %s ms, promised are at most %s", p.what, p.is, p.most))
		}
	}
	if f.Failed > 0 {
		broken = append(broken, fmt.Errorf("%d of %d requests failed", f.Failed, f.Requests))
	}
	if f.Unchecked > 0 {
		broken = append(broken, fmt.Errorf("%d requests reached a service unchecked", f.Unchecked))
	}
	return errors.Join(broken...)
}

// times are measured durations.
type times []time.Duration

// quantile returns the smallest time that the share q is not longer than.
func (t times) quantile(q float64) ms {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return milliseconds(sorted[max(rank, 1)-1])
}

const header = "  %-40s %5s %8s %8s %8s %8s\n"

func printHeader() { fmt.Printf(header, "ms", "n", "p50", "p90", "p99", "max") }

func (t times) print(what string) {
	fmt.Printf(header, what, fmt.Sprint(len(t)), t.quantile(0.5), t.quantile(0.9), t.quantile(0.99), t.quantile(1))
}
