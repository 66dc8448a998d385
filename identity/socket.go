package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// SocketPath returns where the control plane that runs in runDir listens for
// the workload id: a directory of its own, so that who may enter it may speak
// for the workload, and nobody else.
func SocketPath(runDir string, id ID) string {
	return filepath.Join(runDir, string(id.Role), id.Name, "control.sock")
}

// maxSocketPath is what fits into a Unix socket's address.
const maxSocketPath = 107

// Listen opens the socket of a workload. Connections are accepted from
// processes of this process's user, of root, and of agentUID (0 for none
// other), and carry the workload's [Peer], which [Credentials] hands to gRPC.
// A socket that a dead process left is replaced; one that a live process
// answers at is an error. Closing the listener removes the socket.
func Listen(runDir string, id ID, agentUID uint32) (net.Listener, error) {
	path := SocketPath(runDir, id)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen for %s: path %s is longer than %d bytes: choose a shorter run directory", id, path, maxSocketPath)
	}
	if err := prepareSocket(path, agentUID); err != nil {
		return nil, fmt.Errorf("listen for %s: %w", id, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", id, err)
	}
	if err := handOver(path, agentUID); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for %s: %w", id, err), l.Close())
	}
	uids := []uint32{0, uint32(os.Geteuid()), agentUID}
	return &socket{UnixListener: l, peer: Peer{ID: id}, uids: uids}, nil
}

// prepareSocket makes the socket's directory and clears what a dead process
// left in it.
func prepareSocket(path string, agentUID uint32) error {
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(path)), 0o711); err != nil {
		return err
	}
	if err := privateDir(filepath.Dir(path), uint32(os.Geteuid()), agentUID); err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s: another process listens there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// handOver lets agentUID, and nobody else, in.
func handOver(path string, agentUID uint32) error {
	if err := os.Chmod(path, 0o600); err != nil || agentUID == 0 {
		return err
	}
	for _, name := range []string{filepath.Dir(path), path} {
		if err := os.Lchown(name, int(agentUID), -1); err != nil {
			return err
		}
	}
	return nil
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
		if uid, err := PeerUID(c); err == nil && slices.Contains(s.uids, uid) {
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

// PeerUID asks the kernel which user's process is at the other end of c.
func PeerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
