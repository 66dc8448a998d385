package identity

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials returns a gRPC server's transport credentials that give each
// connection of a [Listen] listener its [Peer], and refuse any other.
func Credentials() credentials.TransportCredentials { return socketCredentials{} }

type socketCredentials struct{}

// ServerHandshake implements credentials.TransportCredentials.
func (socketCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pc, ok := c.(*peerConn)
	if !ok {
		return nil, nil, errors.New("connection has no authenticated peer")
	}
	return pc, pc.peer, nil
}

// ClientHandshake implements credentials.TransportCredentials; there is no
// client side.
func (socketCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (socketCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "chancery-unix"}
}

// Clone implements credentials.TransportCredentials.
func (c socketCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (socketCredentials) OverrideServerName(string) error { return nil }
