package identity

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/chancery-mesh/chancery/internal/unixsocket"
)

// SocketPath returns where the control plane that runs in runDir listens for
// the workload id: a directory of its own, so that who may enter it may speak
// for the workload, and nobody else.
func SocketPath(runDir string, id ID) string {
	return filepath.Join(runDir, string(id.Role), id.Name, "control.sock")
}

// Listen opens the socket of a workload. Connections are accepted from
// processes of this process's user, of root, and of agentUID (0 for none
// other), and carry the workload's [Peer], which [Credentials] hands to gRPC.
// A socket that a dead process left is replaced; one that a live process
// answers at is an error. Closing the listener removes the socket.
func Listen(runDir string, id ID, agentUID uint32) (net.Listener, error) {
	l, err := listen(SocketPath(runDir, id), agentUID)
	if err != nil {
		return nil, fmt.Errorf("open the socket of %s: %w", id, err)
	}
	uids := []uint32{0, uint32(os.Geteuid()), agentUID}
	return &socket{UnixListener: l, peer: Peer{ID: id}, uids: uids}, nil
}

func listen(path string, agentUID uint32) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil { //nolint:gosec // agents of another user pass through
		return nil, err
	}
	if err := privateDir(dir, uint32(os.Geteuid()), agentUID); err != nil {
		return nil, err
	}
	l, err := unixsocket.Listen(path)
	if err != nil || agentUID == 0 {
		return l, err
	}
	for _, name := range []string{dir, path} {
		if err := os.Lchown(name, int(agentUID), -1); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// socket accepts the connections of one workload.
type socket struct {
	*net.UnixListener
	peer Peer
	uids []uint32
}

// Accept implements net.Listener. Strangers are hung up on.
func (s *socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if process, err := PeerProcess(c); err == nil && slices.Contains(s.uids, process.Uid) {
			return &peerConn{Conn: c, peer: s.peer}, nil
		}
		_ = c.Close()
	}
}

// peerConn is a connection whose other side is known.
type peerConn struct {
	net.Conn
	peer Peer
}

// PeerProcess asks the kernel which process, of which user, is at the other
// end of c.
func PeerProcess(c *net.UnixConn) (*syscall.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return nil, err
	}
	return cred, nil
}
