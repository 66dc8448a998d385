package identity

import (
	"errors"
	"net"
	"syscall"
)

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
