package identity_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T, runDir string, id identity.ID) net.Listener {
	t.Helper()
	l, err := identity.Listen(runDir, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

// whoami answers with the caller's ID as an error's text.
type whoami struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (whoami) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	peer, ok := identity.PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "nobody")
	}
	return nil, status.Error(codes.Aborted, peer.ID.String())
}

// serve answers whoami on listeners.
func serve(t *testing.T, listeners ...net.Listener) {
	t.Helper()
	server := grpc.NewServer(grpc.Creds(identity.Credentials()))
	grpc_health_v1.RegisterHealthServer(server, whoami{})
	for _, l := range listeners {
		go func() { _ = server.Serve(l) }()
	}
	t.Cleanup(server.Stop)
}

// ask calls whoami at a target.
func ask(t *testing.T, target string) error {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestPeerComesFromTheSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ids := []identity.ID{orders, {Role: identity.RoleGateway, Name: "public"}}
	var listeners []net.Listener
	for _, id := range ids {
		listeners = append(listeners, listen(t, dir, id))
	}
	serve(t, listeners...)
	for _, id := range ids {
		if err := ask(t, "unix:"+identity.SocketPath(dir, id)); status.Convert(err).Message() != id.String() {
			t.Errorf("%s is taken for %v", id, err)
		}
	}
}

func TestCredentialsRefuseOtherListeners(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l)
	if err := ask(t, l.Addr().String()); status.Code(err) != codes.Unavailable {
		t.Errorf("a connection without a peer got %v", err)
	}
}

func TestListenSecuresTheSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := listen(t, dir, orders)
	path := identity.SocketPath(dir, orders)
	for name, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket outlives its listener: %v", err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := listen(t, dir, orders).(interface{ SetUnlinkOnClose(bool) })
	stale.SetUnlinkOnClose(false)
	if err := stale.(net.Listener).Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, listen(t, dir, orders))
	if err := ask(t, "unix:"+identity.SocketPath(dir, orders)); status.Code(err) != codes.Aborted {
		t.Error(err)
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"a live socket": {func(t *testing.T, dir string) { t.Helper(); listen(t, dir, orders) }, "another process"},
		"a directory that others enter": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.MkdirAll(filepath.Dir(identity.SocketPath(dir, orders)), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "mode 0700"},
		"a link in the directory's place": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.MkdirAll(dir+"/service", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(t.TempDir(), dir+"/service/orders"); err != nil {
				t.Fatal(err)
			}
		}, "must be a directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.prepare(t, dir)
			_, err := identity.Listen(dir, orders, 0)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Listen: %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("a path that no socket can have", func(t *testing.T) {
		t.Parallel()
		_, err := identity.Listen(t.TempDir()+"/"+strings.Repeat("x", 100), orders, 0)
		if err == nil || !strings.Contains(err.Error(), "shorter") {
			t.Errorf("Listen: %v", err)
		}
	})
}

func TestListenHangsUpOnStrangers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	const stranger = 65534
	tests := map[string]struct {
		agentUID uint32
		served   bool
	}{
		"nobody else is an agent": {0, false},
		"the agents' user":        {stranger, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Modes stop a stranger before the check does, so they are lifted.
			dir, err := os.MkdirTemp("/tmp", "chancery")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			l, err := identity.Listen(dir, orders, tt.agentUID)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, l)
			path := identity.SocketPath(dir, orders)
			for _, name := range []string{dir, filepath.Dir(filepath.Dir(path)), filepath.Dir(path), path} {
				chmod(t, name, 0o777)
			}
			conn, err := dialAs(path, stranger)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// gRPC's server speaks first: its settings, or the end.
			n, err := conn.Read(make([]byte, 1))
			if (n == 1) != tt.served {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
}

// dialAs connects with the rights of another user. The thread that has them is
// never given back.
func dialAs(path string, uid int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		const same = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}
