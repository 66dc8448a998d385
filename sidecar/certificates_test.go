package sidecar_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// TestRealEnvoySwapsCertificates replaces a gateway's certificate under load, in
// the ways that operators do.
func TestRealEnvoySwapsCertificates(t *testing.T) {
	command := quietEnvoy(t)
	root := newFileAuthority(t)
	dir := filepath.Join(t.TempDir(), "certificates")
	mount(t, dir, root.files(t, "shop", 1))

	cp := newControlPlane(t, public)
	cp.set("rev-1", tlsView(t, true)...)
	cp.start()
	a := newAgent(t, cp)
	a.config.EnvoyCommand = command
	a.config.Local.Inbound = freeAddress(t)
	a.config.Certificates = dir
	a.start()
	address := a.config.Local.Inbound.String()
	serial := func() (int64, error) {
		c, err := tls.Dial("tcp", address, root.client())
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	serves := func(want int64) func() error {
		return func() error {
			got, err := serial()
			return errors.Join(err, is(got, want))
		}
	}
	eventually(t, "the first certificate", serves(1))

	// A connection that is open all the time, and a load that is half on new
	// connections.
	open, err := tls.Dial("tcp", address, root.client())
	check(t, err)
	defer open.Close()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	var requests, failed int
	for i := range 4 {
		transport := &http.Transport{TLSClientConfig: root.client(), DisableKeepAlives: i%2 == 0}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
		load.Go(func() {
			for ctx.Err() == nil {
				err := get(client, "https://"+address)
				mu.Lock()
				if requests++; err != nil {
					failed++
					t.Log(err)
				}
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	for i, swap := range []func(map[string][]byte){
		func(files map[string][]byte) { mount(t, dir, files) },
		func(files map[string][]byte) { replace(t, dir, files) },
		func(files map[string][]byte) { rewrite(t, dir, files) },
	} {
		want := int64(i + 2)
		begin := time.Now()
		swap(root.files(t, "shop", want))
		eventually(t, fmt.Sprintf("certificate %d", want), serves(want))
		t.Logf("files to a handshake with the new certificate: %v", time.Since(begin))
		if err := ask(open); err != nil {
			t.Errorf("the connection that was open: %v", err)
		}
	}
	if got := open.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != 1 {
		t.Errorf("the connection that was open has certificate %d", got)
	}

	// Files that are not good change nothing, and are told of.
	mixed := root.files(t, "shop", 9)
	mixed["shop.key"] = root.files(t, "shop", 10)["shop.key"]
	rewrite(t, dir, mixed)
	eventually(t, "the mismatch is told", func() error { return has(cp.lastReport().GetProblems(), "private key") })
	rewrite(t, dir, selfSignedFiles(t, "shop", 11))
	eventually(t, "the self-signed is told", func() error { return has(cp.lastReport().GetProblems(), "self-signed") })
	check(t, os.Remove(filepath.Join(dir, "shop.crt")))
	eventually(t, "the absence is told", func() error { return has(cp.lastReport().GetProblems(), "no such file") })
	if err := serves(4)(); err != nil {
		t.Errorf("with bad files: %v", err)
	}
	rewrite(t, dir, root.files(t, "shop", 12))
	eventually(t, "a good one again", serves(12))
	eventually(t, "nothing is wrong", func() error { return is(len(cp.lastReport().GetProblems()), 0) })
	stop()
	load.Wait()
	if failed > 0 || requests < 100 {
		t.Errorf("%d of %d requests failed", failed, requests)
	}
	t.Logf("%d requests, %d failed", requests, failed)
	keys, err := filepath.Glob(filepath.Join(a.config.StateDir, "*"))
	check(t, err)
	for _, path := range keys {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, root.lastKey) {
			t.Errorf("the operator's key was copied to %s", path)
		}
	}
}

func TestCertificatesAreServedByName(t *testing.T) {
	root := newFileAuthority(t)
	for _, test := range []struct {
		name      string
		refuse    bool
		allow     bool
		selfSign  bool
		ask       []string
		want      []string
		elsewhere bool
	}{
		{name: "what the listener asks for", ask: []string{"certificate/shop", "trust/partners"}, want: []string{"certificate/shop", "trust/partners"}},
		{name: "what it does not, and tricks", ask: []string{
			"certificate/other", "trust/shop", "certificate/../certificates/shop", "certificate/shop.key", "shop", "*", "certificate/", "kubernetes://shop-cacert",
		}},
		{name: "self-signed where nothing speaks against it", selfSign: true, ask: []string{"certificate/shop"}, want: []string{"certificate/shop"}},
		{name: "self-signed at a public gateway", selfSign: true, refuse: true, ask: []string{"certificate/shop"}},
		{name: "self-signed in a demonstration", selfSign: true, refuse: true, allow: true, ask: []string{"certificate/shop"}, want: []string{"certificate/shop"}},
		{name: "no directory", elsewhere: true, ask: []string{"certificate/shop"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			files := root.files(t, "shop", 1)
			if test.selfSign {
				files = selfSignedFiles(t, "shop", 1)
			}
			replace(t, dir, files)
			replace(t, dir, root.files(t, "other", 2))
			replace(t, dir, map[string][]byte{"partners.ca.crt": root.pem()})
			cp := newControlPlane(t, public)
			cp.set("rev-1", tlsView(t, test.refuse)...)
			cp.start()
			a := newAgent(t, cp)
			if !test.elsewhere {
				a.config.Certificates = dir
			}
			a.config.AllowSelfSigned = test.allow
			a.start()
			e := newFakeEnvoy(t, a.socket())
			e.connect()
			eventually(t, "rev-1 is acknowledged", acknowledged(cp, "rev-1"))
			got := secretsOf(t, e, test.ask)
			if !slices.Equal(got, test.want) {
				t.Errorf("asked for %v, got %v, want %v", test.ask, got, test.want)
			}
			if bad := len(test.want) == 0 && len(test.ask) == 1; bad {
				eventually(t, "it is told", func() error { return has(cp.lastReport().GetProblems(), test.ask[0]) })
				if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "no "+test.ask[0]) {
					t.Errorf("the agent's readiness: %v", err)
				}
			}
		})
	}
}

// secretsOf returns the names of those secrets that there are, sorted.
func secretsOf(t *testing.T, e *fakeEnvoy, names []string) []string {
	t.Helper()
	stream, err := secretv3.NewSecretDiscoveryServiceClient(e.conn).DeltaSecrets(t.Context())
	check(t, err)
	check(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resource.SecretType, ResourceNamesSubscribe: append([]string{"svid"}, names...),
	}))
	resp, err := stream.Recv()
	check(t, err)
	var got []string
	for _, r := range resp.GetResources() {
		var secret tlsv3.Secret
		check(t, r.GetResource().UnmarshalTo(&secret))
		if r.GetName() != "svid" && !slices.Contains(names, "*") || slices.Contains(names, r.GetName()) {
			got = append(got, secret.GetName())
		}
	}
	slices.Sort(got)
	return got
}

// tlsView is the view of a gateway that speaks TLS with clients.
func tlsView(t *testing.T, refuseSelfSigned bool) []*xds.Resource {
	t.Helper()
	g := &mesh.Gateway{
		Name: public.Name, Profile: mesh.ProfilePublic, Listen: envoy.DefaultInbound,
		PeerLimit: mesh.RateLimit{Requests: 100_000, Per: time.Second, Burst: 100_000},
		TLS: &mesh.GatewayTLS{
			Certificates: []string{"shop"}, MinVersion: "1.2",
			Clients: &mesh.ClientCertificates{Trust: "partners"},
		},
	}
	m := &mesh.Mesh{Name: "shop", TrustDomain: trustDomain, Gateways: []*mesh.Gateway{g}}
	if refuseSelfSigned {
		g.TLS.Clients = nil
	}
	resources := []*xds.Resource{encode(t, public.String(), &chancerypb.Policy{
		Name: public.String(), TrustDomain: trustDomain,
		Minting: &chancerypb.Minting{Lifetime: durationpb.New(time.Minute), RefuseSelfSigned: refuseSelfSigned},
	})}
	for _, r := range envoy.Gateway(m, g) {
		resources = append(resources, encode(t, r.Name, r.Message))
	}
	return resources
}

// get takes any answer of the gateway for one; what it has no route for is not
// found.
func get(client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, is(resp.StatusCode, http.StatusNotFound))
}

// ask makes a request on an open connection.
func ask(c *tls.Conn) error {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err == nil && !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 404") {
		err = fmt.Errorf("answered %q", answer[:n])
	}
	return err
}

// has reports whether one of the texts has a part.
func has(texts []string, part string) error {
	if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, part) }) {
		return nil
	}
	return fmt.Errorf("no %q in %q", part, texts)
}

// mount swaps all files at once, as Kubernetes does: they are symlinks into
// ..data, which is a symlink itself.
func mount(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o700))
	generation, err := os.MkdirTemp(dir, "..")
	check(t, err)
	for name, data := range files {
		check(t, os.WriteFile(filepath.Join(generation, name), data, 0o600))
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			check(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	check(t, os.Symlink(filepath.Base(generation), filepath.Join(dir, "..tmp")))
	check(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
}

// replace moves new files into the place of the old.
func replace(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		check(t, atomicfile.Write(filepath.Join(dir, name), data, 0o600))
	}
}

// rewrite writes into files that are there.
func rewrite(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		check(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
}

// fileAuthority signs server certificates.
type fileAuthority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	lastKey []byte
}

func newFileAuthority(t *testing.T) *fileAuthority {
	t.Helper()
	a := &fileAuthority{}
	a.cert, a.key = signFile(t, nil, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// files returns a certificate of that serial number, and its key.
func (a *fileAuthority) files(t *testing.T, name string, serial int64) map[string][]byte {
	t.Helper()
	files := pairFiles(t, a, name, serial)
	a.lastKey = files[name+".key"]
	return files
}

func selfSignedFiles(t *testing.T, name string, serial int64) map[string][]byte {
	t.Helper()
	return pairFiles(t, nil, name, serial)
}

func pairFiles(t *testing.T, a *fileAuthority, name string, serial int64) map[string][]byte {
	t.Helper()
	cert, key := signFile(t, a, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"shop.example"}, KeyUsage: x509.KeyUsageDigitalSignature,
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return map[string][]byte{
		name + ".crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		name + ".key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
}

func signFile(t *testing.T, a *fileAuthority, template *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template.BasicConstraintsValid = true
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	if a == nil {
		a = &fileAuthority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert, key
}

func (a *fileAuthority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *fileAuthority) client() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, ServerName: "shop.example", MinVersion: tls.VersionTLS12}
}
