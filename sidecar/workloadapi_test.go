package sidecar_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestApplicationFollowsItsIdentity runs go-spiffe's source beside an agent,
// through renewals, a rotation of the authority and a revocation.
func TestApplicationFollowsItsIdentity(t *testing.T) {
	cp := newControlPlane(t, web)
	cp.ttl = 4 * time.Second
	cp.set("rev-1", webView(t)...)
	cp.start()
	a := newAgent(t, cp)
	a.config.Identity = web
	a.start()
	socket := "unix:" + filepath.Join(a.config.StateDir, "workload.sock")
	var source *workloadapi.X509Source
	eventually(t, "the socket is there", func() (err error) {
		source, err = workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
		return err
	})
	defer source.Close()
	serial := func() string {
		svid, err := source.GetX509SVID()
		check(t, err)
		if svid.ID.String() != web.SPIFFE(trustDomain) {
			t.Errorf("the certificate is of %s", svid.ID)
		}
		return svid.Certificates[0].SerialNumber.String()
	}
	first := serial()
	eventually(t, "a renewal", func() error {
		if serial() == first {
			return errors.New("it has the first")
		}
		return nil
	})
	roots := func(want int) func() error {
		return func() error {
			bundle, err := source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(trustDomain))
			return errors.Join(err, is(len(bundle.X509Authorities()), want))
		}
	}
	eventually(t, "one root", roots(1))
	_, err := cp.ca.Prepare(true)
	check(t, err)
	cp.publishTrust()
	eventually(t, "the next root", roots(2))

	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(socket))
	check(t, err)
	defer client.Close()
	_, err = cp.ca.RevokeIdentity(web, "test")
	check(t, err)
	cp.publishTrust()
	eventually(t, "the application is told of the revocation", func() error {
		if _, err := client.FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("answered %w", err)
		}
		return nil
	})
}
