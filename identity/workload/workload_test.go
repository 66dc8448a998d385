package workload_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const orders = "spiffe://shop.example/service/orders"

// TestSourceFollows runs go-spiffe's own source through a life of a workload.
func TestSourceFollows(t *testing.T) {
	t.Parallel()
	server, socket := start(t)
	source := make(chan *workloadapi.X509Source, 1)
	go func() {
		s, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr("unix:"+socket)))
		if err != nil {
			t.Error(err)
		}
		source <- s
	}()
	first, root := newSVID(t, nil)
	set(t, server, workload.State{TrustDomain: "shop.example", Roots: []*x509.Certificate{root.cert}})
	set(t, server, workload.State{SVID: first, TrustDomain: "shop.example", Roots: []*x509.Certificate{root.cert}})
	x := <-source // waited until there was an SVID
	defer x.Close()
	serves := func(want *workload.SVID, roots int) func() bool {
		return func() bool {
			svid, err := x.GetX509SVID()
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := x.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("shop.example"))
			if err != nil {
				t.Fatal(err)
			}
			return svid.ID.String() == orders && svid.Certificates[0].Equal(want.Chain[0]) &&
				len(svid.Certificates) == 2 && len(bundle.X509Authorities()) == roots
		}
	}
	eventually(t, "the first SVID", serves(first, 1))

	second, other := newSVID(t, nil)
	set(t, server, workload.State{SVID: second, TrustDomain: "shop.example", Roots: []*x509.Certificate{root.cert, other.cert}})
	eventually(t, "a rotation", serves(second, 2))
}

func TestStreams(t *testing.T) {
	t.Parallel()
	server, socket := start(t)
	svid, root := newSVID(t, nil)
	state := workload.State{
		SVID: svid, TrustDomain: "shop.example", Roots: []*x509.Certificate{root.cert}, CRLs: [][]byte{{1}, {2}},
	}
	set(t, server, state)
	client := dial(t, socket)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true")
	svids, err := client.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
	check(t, err)
	bundles, err := client.FetchX509Bundles(ctx, &pb.X509BundlesRequest{})
	check(t, err)
	gotSVID, err := svids.Recv()
	check(t, err)
	if len(gotSVID.GetSvids()) != 1 || gotSVID.GetSvids()[0].GetSpiffeId() != orders || len(gotSVID.GetCrl()) != 2 || len(gotSVID.GetFederatedBundles()) != 0 {
		t.Errorf("the workload was told %v", gotSVID)
	}
	gotBundles, err := bundles.Recv()
	check(t, err)
	if len(gotBundles.GetBundles()) != 1 || len(gotBundles.GetBundles()["spiffe://shop.example"]) == 0 || len(gotBundles.GetCrl()) != 2 {
		t.Errorf("bundles are %v", gotBundles)
	}

	// The same again is not sent; another list of revoked certificates is.
	set(t, server, state)
	state.CRLs = [][]byte{{3}}
	set(t, server, state)
	gotSVID, err = svids.Recv()
	check(t, err)
	gotBundles, err = bundles.Recv()
	check(t, err)
	if len(gotSVID.GetCrl()) != 1 || len(gotBundles.GetCrl()) != 1 {
		t.Errorf("after a change of lists: %v, %v", gotSVID.GetCrl(), gotBundles.GetCrl())
	}

	// A workload that was revoked is told so; whom to trust it may still know.
	state.Revoked = true
	set(t, server, state)
	_, err = svids.Recv()
	wantCode(t, err, codes.PermissionDenied)
	again, err := client.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
	check(t, err)
	_, err = again.Recv()
	wantCode(t, err, codes.PermissionDenied)
	state.Revoked, state.CRLs = false, nil
	set(t, server, state)
	if got, err := bundles.Recv(); err != nil || len(got.GetCrl()) != 0 {
		t.Errorf("bundles afterwards: %v, %v", got, err)
	}
}

func TestHeaderIsMandatory(t *testing.T) {
	t.Parallel()
	server, socket := start(t)
	svid, root := newSVID(t, nil)
	set(t, server, workload.State{SVID: svid, TrustDomain: "shop.example", Roots: []*x509.Certificate{root.cert}})
	client := dial(t, socket)
	for name, ctx := range map[string]context.Context{
		"none":    t.Context(),
		"false":   metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "false"),
		"True":    metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "True"),
		"twice":   metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true", "workload.spiffe.io", "false"),
		"another": metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.org", "true"),
	} {
		svids, err := client.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
		check(t, err)
		_, err = svids.Recv()
		wantCode(t, err, codes.InvalidArgument, name)
		bundles, err := client.FetchX509Bundles(ctx, &pb.X509BundlesRequest{})
		check(t, err)
		_, err = bundles.Recv()
		wantCode(t, err, codes.InvalidArgument, name)
		_, err = client.FetchJWTSVID(ctx, &pb.JWTSVIDRequest{})
		wantCode(t, err, codes.InvalidArgument, name)
	}
}

func TestOtherProfilesAreDisabled(t *testing.T) {
	t.Parallel()
	_, socket := start(t)
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix:"+socket))
	check(t, err)
	defer client.Close()
	_, err = client.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "shop"})
	wantCode(t, err, codes.Unimplemented)
	_, err = client.FetchJWTBundles(t.Context())
	wantCode(t, err, codes.Unimplemented)
	_, err = client.ValidateJWTSVID(t.Context(), "a.b.c", "shop")
	wantCode(t, err, codes.Unimplemented)
	_, err = client.FetchWITSVIDs(t.Context(), orders)
	wantCode(t, err, codes.Unimplemented)
}

func TestConnectionsAndStreamsAreBounded(t *testing.T) {
	t.Parallel()
	_, socket := start(t)
	var open []net.Conn
	for range 64 {
		c, err := net.Dial("unix", socket)
		check(t, err)
		open = append(open, c)
		defer c.Close()
		read(t, c) // the server's first words: it was accepted
	}
	more, err := net.Dial("unix", socket)
	check(t, err)
	defer more.Close()
	check(t, more.SetReadDeadline(time.Now().Add(5*time.Second)))
	if n, err := more.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("connection 65 got %d bytes, %v", n, err)
	}
	check(t, open[0].Close())
	client := dial(t, socket)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true")
	eventually(t, "a connection's place is free again", func() bool {
		_, err := client.ValidateJWTSVID(ctx, &pb.ValidateJWTSVIDRequest{}, grpc.WaitForReady(true))
		return status.Code(err) == codes.Unimplemented
	})
	for range 16 {
		_, err := client.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
		check(t, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = client.ValidateJWTSVID(short, &pb.ValidateJWTSVIDRequest{})
	wantCode(t, err, codes.DeadlineExceeded, "stream 17")
}

// TestOnlyTheApplicationsUser connects as another user, which takes root.
func TestOnlyTheApplicationsUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	const application, stranger = 41001, 41002
	dir := socketDir(t)
	check(t, os.Chmod(dir, 0o755))
	server := workload.New(workload.Config{UID: application, Logger: slog.New(slog.DiscardHandler)})
	socket := filepath.Join(dir, "workload.sock")
	run(t, server, socket)
	for uid, want := range map[uint32]bool{application: true, stranger: false, 0: false} {
		if got := speaks(t, socket, uid); got != want {
			t.Errorf("user %d is served: %v, want %v", uid, got, want)
		}
	}
}

// speaks reports whether the server says anything to a process of a user: a
// gRPC server speaks first.
func speaks(t *testing.T, socket string, uid uint32) bool {
	t.Helper()
	c, err := dialAs(socket, uid)
	check(t, err)
	defer c.Close()
	check(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Read(make([]byte, 1))
	return err == nil
}

// dialAs connects with another effective user, which is a thread's own. The
// thread ends with its goroutine.
func dialAs(path string, uid uint32) (conn net.Conn, err error) {
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

func TestListenForAnotherUser(t *testing.T) {
	t.Parallel()
	const application = 41001
	server := workload.New(workload.Config{UID: application, Logger: slog.New(slog.DiscardHandler)})
	for _, test := range []struct {
		name string
		mode os.FileMode
		want string
	}{
		{"closed", 0o700, "cannot enter"},
		{"open", 0o755, ""},
		{"open to all", 0o777, "chmod o-w"},
		{"shared as /tmp is", 0o777 | os.ModeSticky, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := socketDir(t)
			check(t, os.Chmod(dir, test.mode))
			socket := filepath.Join(dir, "workload.sock")
			l, err := server.Listen(socket)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error is %v, want one with %q", err, test.want)
				}
				return
			}
			check(t, err)
			defer l.Close()
			info, err := os.Stat(socket)
			check(t, err)
			if info.Mode().Perm() != 0o666 {
				t.Errorf("mode %v", info.Mode())
			}
		})
	}
	l, err := workload.New(workload.Config{UID: uint32(os.Geteuid()), Logger: slog.New(slog.DiscardHandler)}).
		Listen(filepath.Join(socketDir(t), "workload.sock"))
	check(t, err)
	defer l.Close()
	info, err := os.Stat(l.Addr().String())
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("for our own user the mode is %v", info.Mode())
	}
}

// start serves processes of this user.
func start(t *testing.T) (*workload.Server, string) {
	t.Helper()
	server := workload.New(workload.Config{UID: uint32(os.Geteuid()), Logger: slog.New(slog.DiscardHandler)})
	socket := filepath.Join(socketDir(t), "workload.sock")
	run(t, server, socket)
	return server, socket
}

func run(t *testing.T, server *workload.Server, socket string) {
	t.Helper()
	l, err := server.Listen(socket)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t *testing.T, socket string) pb.SpiffeWorkloadAPIClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewSpiffeWorkloadAPIClient(conn)
}

type entity struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newSVID makes an SVID with the authority that signed it, which is also the
// second of its chain.
func newSVID(t *testing.T, root *entity) (*workload.SVID, *entity) {
	t.Helper()
	if root == nil {
		root = issue(t, nil, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "root"}})
	}
	id, err := url.Parse(orders)
	check(t, err)
	leaf := issue(t, root, &x509.Certificate{URIs: []*url.URL{id}, KeyUsage: x509.KeyUsageDigitalSignature})
	return &workload.SVID{SPIFFEID: orders, Chain: []*x509.Certificate{leaf.cert, root.cert}, Key: leaf.key}, root
}

func issue(t *testing.T, parent *entity, template *x509.Certificate) *entity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.BasicConstraintsValid = true
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	if parent == nil {
		parent = &entity{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return &entity{cert, key}
}

func set(t *testing.T, server *workload.Server, state workload.State) {
	t.Helper()
	check(t, server.Set(state))
}

func read(t *testing.T, c net.Conn) {
	t.Helper()
	check(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := c.Read(make([]byte, 1))
	check(t, err)
}

func wantCode(t *testing.T, err error, want codes.Code, about ...string) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%v: code %v, want %v (%v)", about, got, want, err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// socketDir returns a directory whose path is short enough for a socket's.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "workload")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
