package rig

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" {
			t.Error("header is missing")
		}
		if n.Add(1)%2 == 0 {
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	traffic := Load{Rate: 200, URL: server.URL, Header: http.Header{"Authorization": {"Bearer t"}}}.Start(t.Context())
	for n.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	samples := traffic.Stop()
	if got, want := len(samples), int(n.Load()); got != want {
		t.Errorf("%d samples of %d requests", got, want)
	}
	failed := samples.Failed()
	if got, want := len(failed), len(samples)/2; got != want {
		t.Errorf("%d failed, want %d", got, want)
	}
	if failed[0].Status != http.StatusServiceUnavailable || failed[0].Fault == "" {
		t.Errorf("first failure: %+v", failed[0])
	}
}

// A server that hangs up on a connection that was used before makes Go's client
// send a GET again: such a failure must be seen.
func TestLoadNeverRepeats(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 2 {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.(*net.TCPConn).Close()
			}
		}
	}))
	defer server.Close()
	l := Load{URL: server.URL}
	client := l.client(false)
	defer client.CloseIdleConnections()
	if s := l.send(t.Context(), client); s.Fault != "" || !s.Fresh {
		t.Fatal(s)
	}
	if s := l.send(t.Context(), client); s.Fault == "" || s.Fresh {
		t.Error("the failure was hidden")
	}
	if got := n.Load(); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(n int, fault string) Sample {
		return Sample{At: start.Add(time.Duration(n) * time.Millisecond), Fault: fault}
	}
	tests := map[string]struct {
		samples Samples
		want    time.Duration
	}{
		"none":                   {nil, 0},
		"one":                    {Samples{at(5, "")}, 0},
		"only failures":          {Samples{at(0, "x"), at(10, "x")}, 10 * time.Millisecond},
		"failures first":         {Samples{at(0, "x"), at(30, ""), at(40, "")}, 30 * time.Millisecond},
		"failures last":          {Samples{at(0, ""), at(10, ""), at(35, "x")}, 25 * time.Millisecond},
		"in any order":           {Samples{at(20, ""), at(0, ""), at(10, "")}, 10 * time.Millisecond},
		"failures do not end it": {Samples{at(0, ""), at(10, "x"), at(25, ""), at(30, "")}, 25 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.samples.Outage(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
