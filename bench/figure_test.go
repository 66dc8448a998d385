package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	var hundred times
	for n := range 100 {
		hundred = append(hundred, time.Duration(100-n)*time.Millisecond)
	}
	for _, test := range []struct {
		of   times
		q    float64
		want string
	}{
		{nil, 0.5, "0.0"},
		{times{3 * time.Millisecond}, 0.5, "3.0"},
		{times{3 * time.Millisecond}, 0, "3.0"},
		{hundred, 0.5, "50.0"},
		{hundred, 0.99, "99.0"},
		{hundred, 1, "100.0"},
	} {
		if got := test.of.quantile(test.q).String(); got != test.want {
			t.Errorf("quantile %v of %d: %s, want %s", test.q, len(test.of), got, test.want)
		}
	}
}

func TestPromises(t *testing.T) {
	t.Parallel()
	kept := figures{P50: 50, P99: 150, Requests: 9}
	if err := kept.promises(); err != nil {
		t.Error(err)
	}
	for want, f := range map[string]figures{
		"p50":                      {P50: 51},
		"p99":                      {P99: 151},
		"a cluster added":          {ClusterAdded: 201},
		"a threshold changed":      {ThresholdChanged: 201},
		"a restarted Envoy serves": {EnvoyServes: 1001},
		"agent is away":            {AgentOutage: 1001},
		"1 of 9 requests failed":   {Requests: 9, Failed: 1},
		"unchecked":                {Unchecked: 1},
	} {
		if err := f.promises(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestFiguresNamePromisedMembers(t *testing.T) {
	t.Parallel()
	line, err := json.Marshal(figures{P50: 12.3, Failed: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"consul_to_envoy_p50_ms":12.3`, `"consul_to_envoy_p99_ms":0`, `"failed_requests":2`} {
		if !strings.Contains(string(line), want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
}

func TestUsedBy(t *testing.T) {
	t.Parallel()
	const clusters = "orders~read-order::default_priority::max_requests::500\n" +
		"orders~read-order::127.0.0.1:1::rq_total::0\n" +
		"orders::127.0.0.1:1::rq_total::12\n"
	if usedBy(clusters, "orders~read-order") {
		t.Error("used without a request")
	}
	if !usedBy(clusters, "orders") {
		t.Error("not used")
	}
}
