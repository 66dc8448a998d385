package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRotationPromises(t *testing.T) {
	t.Parallel()
	kept := rotationFigures{Requests: 500, NewConnections: 100, LeafRotations: 4, Generations: 3, Seconds: 1}
	if err := kept.promises(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*rotationFigures){
		"1 of 500 requests failed":              func(f *rotationFigures) { f.Failed = 1 },
		"1 TLS errors":                          func(f *rotationFigures) { f.TLSErrors = 1 },
		"2 generations of authorities":          func(f *rotationFigures) { f.Generations = 2 },
		"no certificate was renewed":            func(f *rotationFigures) { f.LeafRotations = 0 },
		"494 requests in 1 s":                   func(f *rotationFigures) { f.Requests = 494 },
		"99 of 500 requests on new connections": func(f *rotationFigures) { f.NewConnections = 99 },
	} {
		f := kept
		spoil(&f)
		if err := f.promises(); err == nil || err.Error() != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRotationFiguresNamePromisedMembers(t *testing.T) {
	t.Parallel()
	line, err := json.Marshal(rotationFigures{Requests: 1, Failed: 2, TLSErrors: 3, LeafRotations: 4, Generations: 5, NewConnections: 6})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"requests":1`, `"failed":2`, `"tls_errors":3`, `"leaf_rotations":4`, `"authority_generations":5`, `"new_connections":6`,
	} {
		if !strings.Contains(string(line), want+",") {
			t.Errorf("no %s in %s", want, line)
		}
	}
}

func TestTLSErrorsAreReadAndCompared(t *testing.T) {
	t.Parallel()
	read := func(text string) counters {
		t.Helper()
		c := counters{}
		if err := c.read("public", envoyTLSError, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const before = "cluster.orders.ssl.connection_error: 2\ncluster.orders.ssl.handshake: 90\nlistener.inbound.ssl.fail_verify_error: 5\n"
	for name, test := range map[string]struct {
		after string
		want  int
		fault string
	}{
		"nothing new":   {before, 0, ""},
		"one of each":   {"cluster.orders.ssl.connection_error: 3\nlistener.inbound.ssl.fail_verify_error: 6\n", 2, ""},
		"a new counter": {before + "cluster.stock.ssl.fail_verify_no_cert: 4\n", 4, ""},
		"one vanished":  {"cluster.orders.ssl.connection_error: 9\n", 0, "public listener.inbound.ssl.fail_verify_error was 5"},
		"one fell":      {"cluster.orders.ssl.connection_error: 0\nlistener.inbound.ssl.fail_verify_error: 9\n", 0, "public cluster.orders.ssl.connection_error was 2 and is 0"},
	} {
		got, err := read(test.after).since(read(before))
		if got != test.want || (test.fault == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if err := (counters{}).read("public", envoyTLSError, "cluster.orders.upstream_cx_total: 1\n"); err == nil {
		t.Error("an Envoy without TLS passes")
	}
	c := counters{}
	if err := c.read("control-plane", handshakeRefused, "# TYPE chancery_connections_refused_total counter\nchancery_connections_refused_total 7\n"); err != nil || c["control-plane chancery_connections_refused_total"] != 7 {
		t.Errorf("%v, %v", c, err)
	}
}
