package sidecar

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

const enrollTimeout = 5 * time.Second

// credentials keeps the workload's SVID, serves it to Envoy, and renews it in
// time. A gateway's key for Passports lives here as well.
type credentials struct {
	dir     string
	id      identity.ID
	client  chancerypb.ControlPlaneClient
	secrets *xds.Collection
	log     *slog.Logger
	expiry  prometheus.Gauge

	key     *ecdsa.PrivateKey
	current atomic.Pointer[svid]
	// passports are nil but at a gateway.
	passports *passportKeys
}

// load takes over what an earlier agent left. Only keys are required to be
// sound: a certificate can be had again.
func (c *credentials) load() error {
	var err error
	if c.key, err = workloadKey(c.dir); err != nil {
		return err
	}
	if c.passports != nil {
		if err := c.passports.load(); err != nil {
			return err
		}
	}
	s, err := loadSVID(c.dir, c.id, c.key)
	if err == nil {
		return c.serve(s)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("certificate on disk not used", "err", err)
	}
	return nil
}

// run enrolls now, and again at about half of each certificate's life.
func (c *credentials) run(ctx context.Context) error {
	pause := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	for {
		rest := func() bool { return pause.wait(ctx) }
		if err := c.enroll(ctx); err == nil {
			pause.reset()
			rest = func() bool { return sleep(ctx, c.current.Load().renewal()) }
		} else if ctx.Err() == nil {
			c.log.ErrorContext(ctx, "not enrolled", "err", err)
		}
		if !rest() {
			return nil
		}
	}
}

// enroll has the control plane sign the workload's certificate and endorse
// the key for Passports.
func (c *credentials) enroll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, c.key)
	if err != nil {
		return fmt.Errorf("make certificate request: %w", err)
	}
	req := &chancerypb.EnrollRequest{Csr: csr}
	if c.passports != nil {
		if req.PassportKeys, err = c.passports.offer(); err != nil {
			return err
		}
		req.PassportKey = req.PassportKeys[0]
	}
	resp, err := c.client.Enroll(ctx, req, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	s, err := newSVID(c.id, c.key, resp.GetChain(), resp.GetBundle())
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	if err := s.save(c.dir); err != nil {
		return err
	}
	if c.passports != nil {
		if err := c.passports.endorsed(s.expires()); err != nil {
			return err
		}
	}
	return c.serve(s)
}

// serve hands an SVID to Envoy, which uses it for new connections.
func (c *credentials) serve(s *svid) error {
	key, err := encodeKey(s.key)
	if err != nil {
		return err
	}
	var resources []*xds.Resource
	for _, secret := range envoy.Secrets(
		[]byte(encodeCertificates("CERTIFICATE", s.chain)), key,
		[]byte(encodeCertificates("CERTIFICATE", s.bundle)),
	) {
		r, err := xds.New(secret.GetName(), secret)
		if err != nil {
			return err
		}
		resources = append(resources, r)
	}
	c.secrets.Apply(resources)
	c.current.Store(s)
	c.expiry.Set(float64(s.expires().Unix()))
	return nil
}

// spiffeID returns the workload's SPIFFE ID, empty while it is not known.
func (c *credentials) spiffeID() string {
	if s := c.current.Load(); s != nil {
		return s.spiffeID()
	}
	return ""
}
