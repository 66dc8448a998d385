package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// anonymousLife bounds the connections of those who showed no certificate:
// time enough to prove who they are.
const anonymousLife = 2 * time.Minute

// ServerCredentials are the control plane's transport credentials. Each
// connection has a [Peer]: zero if the other side showed no certificate. Who
// shows one that is not good is refused. A connection ends with its certificate,
// or when [ServerCredentials.Cut] says so.
type ServerCredentials struct {
	// Turn, if set before the first handshake, is called when a client has said
	// hello, before its handshake costs anything. It may wait; an error ends the
	// handshake.
	Turn func(client net.Addr) error

	src Source

	mu   sync.Mutex
	open map[*conn]Peer
}

var _ credentials.TransportCredentials = (*ServerCredentials)(nil)

// NewServerCredentials returns credentials that show src's SVID and verify by
// src's trust, the newest of both at each handshake.
func NewServerCredentials(src Source) *ServerCredentials {
	return &ServerCredentials{src: src, open: map[*conn]Peer{}}
}

// ServerHandshake implements credentials.TransportCredentials. The client has
// some seconds to say hello, and as many for the rest. That deadline holds until
// gRPC has read the client's preface, and lifts it.
func (c *ServerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := raw.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	tlsConn := tls.Server(raw, c.config())
	if err := tlsConn.HandshakeContext(context.Background()); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	served, peer, err := c.admit(tlsConn)
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return served, peer, nil
}

func (c *ServerCredentials) config() *tls.Config {
	config := config(func(state tls.ConnectionState) error {
		_, err := c.peer(state)
		return err
	})
	config.ClientAuth = tls.RequestClientCert
	config.GetConfigForClient = c.turn
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		svid := c.src.SVID()
		if svid == nil {
			return nil, errors.New("the control plane has no certificate yet")
		}
		own := svid.TLSCertificate()
		return &own, nil
	}
	return config
}

// turn waits until it is a client's turn, and changes nothing else.
func (c *ServerCredentials) turn(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if c.Turn == nil {
		return nil, nil
	}
	if err := c.Turn(hello.Conn.RemoteAddr()); err != nil {
		return nil, err
	}
	return nil, hello.Conn.SetDeadline(time.Now().Add(helloTimeout))
}

// peer returns who is at the other side, by the newest trust.
func (c *ServerCredentials) peer(state tls.ConnectionState) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	id, err := byTrust(c.src)(state.PeerCertificates, time.Now())
	if err != nil {
		return Peer{}, err
	}
	return Peer{ID: id, Certificate: state.PeerCertificates[0]}, nil
}

// admit makes c know of a connection and then looks at it once more: whoever
// was revoked during the handshake is met by either this or
// [ServerCredentials.Cut].
func (c *ServerCredentials) admit(tlsConn *tls.Conn) (net.Conn, Peer, error) {
	state := tlsConn.ConnectionState()
	peer, err := c.peer(state)
	if err != nil {
		return nil, Peer{}, err
	}
	end := time.Now().Add(anonymousLife)
	if peer.Certificate != nil {
		end = peer.Certificate.NotAfter
	}
	served := &conn{Conn: tlsConn, forget: c.forget}
	c.mu.Lock()
	c.open[served] = peer
	c.mu.Unlock()
	served.closeAt(end)
	if _, err := c.peer(state); err != nil {
		return nil, Peer{}, errors.Join(err, served.Close())
	}
	return served, peer, nil
}

func (c *ServerCredentials) forget(served *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, served)
}

// Cut closes the open connections of the peers that drop chooses, and returns
// how many those were. Called after the trust changed, it leaves none behind.
func (c *ServerCredentials) Cut(drop func(Peer) bool) int {
	var chosen []*conn
	c.mu.Lock()
	for served, peer := range c.open {
		if drop(peer) {
			chosen = append(chosen, served)
		}
	}
	c.mu.Unlock()
	for _, served := range chosen {
		_ = served.Close() // the other side may be gone already
	}
	return len(chosen)
}

// ClientHandshake implements credentials.TransportCredentials; there is no
// client side.
func (*ServerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (*ServerCredentials) Info() credentials.ProtocolInfo { return protocolInfo() }

// Clone implements credentials.TransportCredentials: connections stay one set.
func (c *ServerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials: no name but
// the SPIFFE ID is looked at.
func (*ServerCredentials) OverrideServerName(string) error { return nil }
