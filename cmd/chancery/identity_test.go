package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chancery-mesh/chancery/sidecar"
)

// A certificate that is not good is not said to be in use, nor to be renewed.
func TestWriteIdentity(t *testing.T) {
	t.Parallel()
	now := time.Now()
	id := sidecar.Identity{
		Identity: "service/orders", Instance: "orders-1",
		Certificate: &sidecar.Certificate{Serial: "1a", EnvoySerial: "1a", Expires: now.Add(time.Hour), Renews: now.Add(time.Minute)},
		Trust:       &sidecar.TrustBundle{TrustDomain: "shop.example", Sequence: 7, EnvoySequence: 6},
	}
	write := func(bad error) string {
		var b bytes.Buffer
		if err := writeIdentity(&b, id, bad); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for text, want := range map[string]bool{"in use": true, "renews": true, "NOT GOOD": false, "sequence 7  Envoy has another one": true} {
		if good := write(nil); strings.Contains(good, text) != want {
			t.Errorf("%q is %t in what is said of a good one:\n%s", text, !want, good)
		}
	}
	for text, want := range map[string]bool{"in use": false, "renews": false, "NOT GOOD: certificate 1a was revoked": true} {
		if bad := write(errors.New("certificate 1a was revoked")); strings.Contains(bad, text) != want {
			t.Errorf("%q is %t in what is said of a revoked one:\n%s", text, !want, bad)
		}
	}
}

// address sets a variable to an address on loopback that nobody listens on.
func address(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

// proves waits until the agent of a state directory has a certificate that is
// good, or until it has none.
func proves(ts *testscript.TestScript, not bool, args []string) {
	deadline := time.Now().Add(time.Minute)
	for {
		id, err := sidecar.FetchIdentity(context.Background(), ts.MkAbs(args[0]))
		good := err == nil && id.Good(time.Now()) == nil
		if good != not {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("good: %t: %+v, %v", good, id, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
