package sidecar

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// enroll has the control plane sign the next certificate, and endorse the keys
// for Passports. The key is on disk before it is asked for: whoever comes after
// a crash asks with the same one, which a join token may be bound to by then.
func (c *credentials) enroll(ctx context.Context) error {
	key, err := pendingKey(c.dir)
	if err != nil {
		return err
	}
	req := &chancerypb.EnrollRequest{}
	if req.Csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return fmt.Errorf("make certificate request: %w", err)
	}
	joins := c.lapsed() != nil || c.refused.Load()
	if c.passports != nil {
		if req.PassportKeys, err = c.passports.offer(joins); err != nil {
			return err
		}
	}
	ask := c.renew
	if joins {
		ask = c.join
	}
	resp, err := ask(ctx, req)
	if err != nil {
		return err
	}
	return c.accept(ctx, key, resp)
}

// join proves once more who this is, where the certificate is of no use. Where
// it seems good and the control plane refuses it, it is tried as well.
func (c *credentials) join(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	lapsed := c.lapsed()
	resp, err := c.prove(ctx, req)
	switch {
	case err == nil:
		return resp, nil
	case lapsed != nil:
		return nil, errors.Join(lapsed, err)
	}
	if resp, renewErr := c.renew(ctx, req); renewErr == nil {
		return resp, nil
	}
	return nil, fmt.Errorf("the control plane refuses certificate %s, which may be revoked: %w", c.current.Load().Serial(), err)
}

// prove asks with a proof of identity.
func (c *credentials) prove(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	resp, err := c.joiner.join(ctx, req)
	c.metrics.enrolled("join", err)
	return resp, err
}

// renew asks with the certificate that it shall follow. One that was refused is
// not waited with for better times: a token may come meanwhile.
func (c *credentials) renew(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	resp, err := c.client.Enroll(ctx, req, grpc.WaitForReady(!c.refused.Load()))
	c.metrics.enrolled("renew", err)
	switch status.Code(err) {
	case codes.OK:
		return resp, nil
	case codes.PermissionDenied, codes.Unauthenticated:
		c.refused.Store(true)
	default: // nobody said no
	}
	return nil, fmt.Errorf("renew certificate: %w", err)
}

// accept puts to use what the control plane gave: the certificate must be of
// our key and our name, and good by the newest Trust.
func (c *credentials) accept(ctx context.Context, key crypto.Signer, resp *chancerypb.EnrollResponse) error {
	svid, err := identity.ParseSVID(c.id, key, withoutRoot(resp.GetChain()))
	if err != nil {
		return fmt.Errorf("certificate from the control plane: %w", err)
	}
	now := time.Now()
	if err := checkClock(svid, now); err != nil {
		return err
	}
	if err := c.believe(resp, svid, now); err != nil {
		return fmt.Errorf("certificate from the control plane: %w", err)
	}
	s := newCertificate(svid, now)
	if err := s.save(c.dir); err != nil {
		return err
	}
	if c.passports != nil {
		if err := c.passports.endorsed(s.Expires()); err != nil {
			return err
		}
	}
	c.refused.Store(false)
	if err := c.serve(s); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "certificate obtained", "spiffe_id", s.SPIFFEID(), "serial", s.Serial(), "expires", s.Expires())
	if err := c.connect(ctx); err != nil {
		c.log.WarnContext(ctx, "connection with the certificate before is kept", "err", err)
	}
	return nil
}

// believe takes the Trust of a response and checks the certificate by it.
func (c *credentials) believe(resp *chancerypb.EnrollResponse, svid *identity.SVID, now time.Time) error {
	t, err := c.trust.newer(resp.GetTrust())
	if err != nil {
		return err
	}
	if _, err := t.Verify(svid.Chain, now); err != nil {
		return err
	}
	return c.trust.adopt(t)
}

// checkClock tells a clock that is wrong from a certificate that is.
func checkClock(s *identity.SVID, now time.Time) error {
	const mend = "is the clock of this host right, and that of the control plane?"
	switch begin, end := s.Chain[0].NotBefore, s.Expires(); {
	case now.Before(begin):
		return fmt.Errorf("certificate from the control plane begins at %s, but it is %s here: %s",
			begin.Format(time.RFC3339), now.Format(time.RFC3339), mend)
	case !now.Before(end):
		return fmt.Errorf("certificate from the control plane ended at %s, but it is %s here: %s",
			end.Format(time.RFC3339), now.Format(time.RFC3339), mend)
	}
	return nil
}

// withoutRoot drops the root, which the other side of a connection has.
func withoutRoot(chain [][]byte) [][]byte {
	if n := len(chain) - 1; n > 0 {
		if c, err := x509.ParseCertificate(chain[n]); err == nil && c.CheckSignatureFrom(c) == nil {
			return chain[:n]
		}
	}
	return chain
}
