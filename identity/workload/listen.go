package workload

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/unixsocket"
)

// Listen opens the socket at path. For the application of another user anybody
// may open it, and whoever is not that user is hung up on; its directory must
// let the user in, and not just anybody put another socket there.
func (s *Server) Listen(path string) (net.Listener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("workload api: %w", err)
	}
	other := s.config.UID != uint32(os.Geteuid())
	if other {
		if err := checkWay(filepath.Dir(path), s.config.UID); err != nil {
			return nil, fmt.Errorf("workload api: %w", err)
		}
	}
	l, err := unixsocket.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("workload api: %w", err)
	}
	if other {
		if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // the kernel tells who it is
			return nil, errors.Join(fmt.Errorf("workload api: %w", err), l.Close())
		}
	}
	return &listener{UnixListener: l, server: s}, nil
}

// checkWay checks that uid can come to dir, and that not just anybody can put
// something in the place of what is there.
func checkWay(dir string, uid uint32) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return err
		case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
			return fmt.Errorf("anybody can write to %s and so put a socket of their own there: run chmod o-w %s", dir, dir)
		case !mayEnter(info, uid):
			return fmt.Errorf("user %d of the application cannot enter %s: choose a socket in a directory that it can, such as /run/NAME with mode 0755", uid, dir)
		case dir == filepath.Dir(dir):
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// mayEnter reports whether a user may search a directory, by its mode.
func mayEnter(dir fs.FileInfo, uid uint32) bool {
	owner := dir.Sys().(*syscall.Stat_t)
	switch mode := dir.Mode().Perm(); {
	case uid == 0:
		return true
	case owner.Uid == uid:
		return mode&0o100 != 0
	case slices.Contains(groups(uid), strconv.Itoa(int(owner.Gid))):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// groups returns the groups of a user; of one that is not known here, none.
func groups(uid uint32) []string {
	u, err := user.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	return ids
}

// listener accepts so many connections of one user.
type listener struct {
	*net.UnixListener
	server *Server
	open   atomic.Int32
}

// Accept implements net.Listener. Strangers, and connections beyond the bound,
// are hung up on.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if err := l.admit(c); err != nil {
			_ = c.Close()
			l.server.refusals.Do(func() { l.server.log.Warn("connection refused", "err", err) })
			continue
		}
		l.open.Add(1)
		return &conn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
	}
}

func (l *listener) admit(c *net.UnixConn) error {
	process, err := identity.PeerProcess(c)
	switch {
	case err != nil:
		return err
	case process.Uid != l.server.config.UID:
		return fmt.Errorf("process %d is of user %d, not of the application's user %d", process.Pid, process.Uid, l.server.config.UID)
	case l.open.Load() >= maxConnections:
		return fmt.Errorf("%d connections are open already", maxConnections)
	}
	return nil
}

type conn struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closed()
	return c.Conn.Close()
}
