package sidecar

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/passport"
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
	// passports is nil until the control plane has endorsed the key.
	passports atomic.Pointer[passport.Signer]
}

// passportKeyFile is written once the key in it was endorsed.
const passportKeyFile = "passport.key"

// load takes over what an earlier agent left. Only keys are required to be
// sound: a certificate can be had again.
func (c *credentials) load() error {
	var err error
	if c.key, err = workloadKey(c.dir); err != nil {
		return err
	}
	if err := c.loadPassportKey(); err != nil {
		return err
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

func (c *credentials) loadPassportKey() error {
	if c.id.Role != identity.RoleGateway {
		return nil
	}
	key, err := loadKey[ed25519.PrivateKey](filepath.Join(c.dir, passportKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := passport.NewSigner(key)
	if err != nil {
		return fmt.Errorf("passport key: %w", err)
	}
	c.passports.Store(signer)
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
	var endorsed func() error
	if c.id.Role == identity.RoleGateway {
		if req.PassportKey, endorsed, err = c.offerPassportKey(); err != nil {
			return err
		}
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
	if endorsed != nil {
		if err := endorsed(); err != nil {
			return err
		}
	}
	return c.serve(s)
}

// offerPassportKey returns the public key to be endorsed: the one in use, or a
// new one, which endorsed puts to use.
func (c *credentials) offerPassportKey() (jwk []byte, endorsed func() error, err error) {
	if signer := c.passports.Load(); signer != nil {
		jwk, err = passport.EncodeKey(signer.Public())
		return jwk, nil, err
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make passport key: %w", err)
	}
	jwk, err = passport.EncodeKey(public)
	return jwk, func() error {
		if err := saveKey(filepath.Join(c.dir, passportKeyFile), key); err != nil {
			return err
		}
		return c.loadPassportKey()
	}, err
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
