package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// helloTimeout bounds how long a stranger may keep a connection that says
	// nothing.
	helloTimeout = 5 * time.Second
	// handshakeTimeout is a client's: it may have to wait for its turn.
	handshakeTimeout = 2 * helloTimeout
)

// Source has the newest of what a process knows of itself and of others. Either
// is nil as long as there is none. It is safe for concurrent use.
type Source interface {
	SVID() *SVID
	Trust() *Trust
}

// verifyFunc returns whom a chain stands for.
type verifyFunc func(chain []*x509.Certificate, now time.Time) (ID, error)

// byTrust verifies by the newest trust of src.
func byTrust(src Source) verifyFunc {
	return func(chain []*x509.Certificate, now time.Time) (ID, error) {
		trust := src.Trust()
		if trust == nil {
			return ID{}, errors.New("nobody is trusted yet")
		}
		return trust.Verify(chain, now)
	}
}

// config returns what both sides of the mesh's own TLS have in common: the
// newest protocol, no session that would come back without a look at its
// certificates, HTTP/2, and verify as the only judge.
func config(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		SessionTicketsDisabled: true,
		// SPIFFE IDs are no host names, which is all that package tls could
		// verify. VerifyConnection is called on each handshake, and refuses.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != "h2" {
				return errors.New("the other side does not ask for h2 by ALPN")
			}
			return verify(state)
		},
	}
}

// ClientCredentials returns an agent's transport credentials: the other side
// must be [ControlPlane] by src's trust, and is shown src's SVID if there is
// one. Each handshake uses the newest of both.
func ClientCredentials(src Source) credentials.TransportCredentials {
	return client{verify: byTrust(src), svid: src.SVID}
}

// JoinCredentials returns the transport credentials of an agent that has
// neither SVID nor trust: it shows no certificate, and the other side must be
// [ControlPlane] of a root that pins name.
func JoinCredentials(pins Pins) credentials.TransportCredentials {
	return client{verify: pins.verify, svid: func() *SVID { return nil }}
}

type client struct {
	verify verifyFunc
	svid   func() *SVID
}

// ClientHandshake implements credentials.TransportCredentials.
func (c client) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tlsConn := tls.Client(raw, c.config())
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connect to the control plane: %w", err), raw.Close())
	}
	peer := Peer{ID: ControlPlane, Certificate: tlsConn.ConnectionState().PeerCertificates[0]}
	joined := &conn{Conn: tlsConn}
	joined.closeAt(peer.Certificate.NotAfter)
	return joined, peer, nil
}

func (c client) config() *tls.Config {
	config := config(func(state tls.ConnectionState) error {
		id, err := c.verify(state.PeerCertificates, time.Now())
		if err == nil && id != ControlPlane {
			err = fmt.Errorf("it is %s, not the control plane", id)
		}
		return err
	})
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		own := tls.Certificate{}
		if svid := c.svid(); svid != nil {
			own = svid.TLSCertificate()
		}
		return &own, nil
	}
	return config
}

// ServerHandshake implements credentials.TransportCredentials; there is no
// server side.
func (client) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials are a client's")
}

// Info implements credentials.TransportCredentials.
func (client) Info() credentials.ProtocolInfo { return protocolInfo() }

// Clone implements credentials.TransportCredentials.
func (c client) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials: no name but
// the SPIFFE ID is looked at.
func (client) OverrideServerName(string) error { return nil }

func protocolInfo() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
