package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-mesh/chancery/internal/rig"
)

var identities = []scene{
	{"a process without a certificate asks inventory's sidecar", "no handshake, nothing reaches inventory", noCertificate},
	{"payments' certificate asks orders, which names other callers", "403, nothing reaches orders", refusedByIdentity},
	{"a partner asks for orders without its client certificate", "no handshake at the gateway", partnerUnknown},
	{"a partner with its certificate asks orders, that inventory", "200; 401 there, not for such Passports", partnersPassport},
	{"orders' key is stolen and asks inventory; then revoked", "200; then 403, no new handshake, in 2s", stolenKey},
	{"orders joins again", "ada gets 200, the thief nothing", joinedAgain},
}

// inventory is asked by somebody who stands before its sidecar, past the mesh.
func (s *shop) inventory(config *tls.Config, stolen string) request {
	return request{path: "/stock/7", host: "inventory", at: s.Instances("inventory")[0].Agent, tls: config, passport: stolen}
}

func noCertificate(ctx context.Context, s *shop) (string, error) {
	stolen, err := s.stolen(ctx)
	if err != nil {
		return "", err
	}
	return s.noHandshake(ctx, "inventory", s.inventory(anyServer(nil), stolen))
}

// noHandshake plays a request that must end before it is made.
func (s *shop) noHandshake(ctx context.Context, behind string, q request) (string, error) {
	var refusal error
	reached, err := s.reaching(ctx, behind, func() error {
		_, refusal = s.send(ctx, q)
		return nil
	})
	if refusal == nil {
		return "an answer", errors.Join(err, errors.New("the handshake was not refused"))
	}
	return "no handshake", errors.Join(err,
		expect(isRefusal(refusal), "another failure: %w", refusal),
		expect(reached == 0, "%d requests reached %s", reached, behind))
}

// isRefusal reports whether err is a server's refusal of a client's certificate,
// or what is left of it: in TLS 1.3 the client may be sending by then, and see
// the connection close before it reads why.
func isRefusal(err error) bool {
	return strings.Contains(err.Error(), "tls: ") || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func refusedByIdentity(ctx context.Context, s *shop) (string, error) {
	return refused("orders", http.StatusForbidden, func(ctx context.Context, s *shop) (request, error) {
		stolen, err := s.stolen(ctx)
		if err != nil {
			return request{}, err
		}
		payments, err := s.svid("payments")
		return request{
			path: "/orders/7", host: "orders", at: s.Instances("orders")[0].Agent, tls: anyServer(payments), passport: stolen,
		}, err
	})(ctx, s)
}

func partnerUnknown(ctx context.Context, s *shop) (string, error) {
	return s.noHandshake(ctx, "orders", request{path: "/orders/7", token: s.token, at: s.Gateways["partners"]})
}

func partnersPassport(ctx context.Context, s *shop) (string, error) {
	config, err := s.TLS("partner.example")
	if err != nil {
		return "", err
	}
	var re reply
	reached, err := s.reaching(ctx, "inventory", func() (err error) {
		re, err = s.send(ctx, request{path: "/orders/7", token: s.token, at: s.Gateways["partners"], tls: config})
		return err
	})
	if err != nil {
		return "", err
	}
	up := re.answer.Upstream
	if up == nil {
		return re.String(), errors.New("orders did not get to ask: " + re.body)
	}
	return fmt.Sprintf("%d with a Passport by %s; %d at inventory", re.status, lastPart(re.answer.Passport.Gateway), up.Status), errors.Join(
		expect(up.Status == http.StatusUnauthorized, "not 401"),
		expect(reached == 0, "%d requests reached inventory", reached),
	)
}

// thief holds a connection open by what was orders' key.
type thief struct {
	svid   *tls.Certificate
	client *http.Client
}

func (s *shop) newThief() (*thief, error) {
	svid, err := s.svid("orders")
	return &thief{svid, &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: anyServer(svid), ForceAttemptHTTP2: true,
	}}}, err
}

func stolenKey(ctx context.Context, s *shop) (string, error) {
	stolen, err := s.stolen(ctx)
	if err != nil {
		return "", err
	}
	t, err := s.newThief()
	if err != nil {
		return "", err
	}
	defer t.client.CloseIdleConnections()
	before, err := s.sendBy(ctx, t.client, s.inventory(nil, stolen))
	if err != nil {
		return "", fmt.Errorf("the thief: %w", err)
	}
	start := time.Now()
	if _, err := s.Chancery(ctx, "revoke", "--service", "orders", "--reason", "stolen", "--run", s.RunDir()); err != nil {
		return before.String(), err
	}
	var open reply
	errOpen := rig.Until(ctx, 2*time.Second-time.Since(start), func(ctx context.Context) (err error) {
		open, err = s.sendBy(ctx, t.client, s.inventory(nil, stolen))
		return errors.Join(err, expect(open.status != http.StatusOK, "the thief still gets in"))
	})
	took := time.Since(start)
	_, errFresh := s.noHandshake(ctx, "inventory", s.inventory(anyServer(t.svid), stolen))
	s.thief = t.svid
	return fmt.Sprintf("%s; after %s %d, and no handshake", before, round(took), open.status), errors.Join(
		expect(before.status == http.StatusOK, "the thief did not get in at all: %s", before.body),
		errOpen, errFresh)
}

// joinedAgain gives orders' agent another token; where the registry vouches for
// it, it needs none.
func joinedAgain(ctx context.Context, s *shop) (string, error) {
	start := time.Now()
	if _, err := s.Token(ctx, "service", "orders", "orders-1"); err != nil {
		return "", err
	}
	var stolen string
	err := rig.Until(ctx, 10*time.Second, func(ctx context.Context) (err error) {
		stolen, err = s.stolen(ctx) // orders asks inventory, which must let it in again
		return err
	})
	took := time.Since(start)
	if err != nil {
		return "", err
	}
	came, err := s.noHandshake(ctx, "inventory", s.inventory(anyServer(s.thief), stolen))
	return fmt.Sprintf("200 after %s; %s for the thief", round(took), came), err
}

// svid is what somebody has who has read the state directory of a service's
// agent.
func (s *shop) svid(service string) (*tls.Certificate, error) {
	return certificateIn(s.Instances(service)[0].Agent.State)
}

func certificateIn(state string) (*tls.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(state, "svid.pem"))
	if err != nil {
		return nil, err
	}
	svid, err := tls.X509KeyPair(data, data)
	return &svid, err
}

// anyServer presents a certificate, unless it is nil, and cares for nothing.
func anyServer(certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return config
}
