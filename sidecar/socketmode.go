package sidecar

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// socketMode says that the control plane is reached by a Unix socket, which
// says who this workload is, and may give a bare trust bundle.
type socketMode bool

func (m socketMode) withoutTrust() error {
	if m {
		return nil
	}
	return errors.New("there is no trust bundle to verify the control plane by")
}

// joins says that each request is the first.
func (m socketMode) joins() bool { return bool(m) }

const bundleFile = "bundle.pem"

// takeBundle serves a bare trust bundle, without revocations.
func (m socketMode) takeBundle(t *trust, bundle [][]byte) error {
	if !m {
		return errors.New("it came without trust")
	}
	var text []byte
	for _, der := range bundle {
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("trust bundle: %w", err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if len(text) == 0 {
		return errors.New("it came without a trust bundle")
	}
	if err := atomicfile.Write(t.path+"."+bundleFile, text, 0o600); err != nil {
		return err
	}
	return m.serveBundle(t, text)
}

// load takes over the bundle that an earlier agent left.
func (m socketMode) load(t *trust) error {
	if !m {
		return nil
	}
	text, err := readPrivate(t.path + "." + bundleFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.serveBundle(t, text)
}

func (socketMode) serveBundle(t *trust, text []byte) error {
	r, err := xds.New(envoy.SecretBundle, envoy.ClientTrust(envoy.SecretBundle, text))
	if err != nil {
		return err
	}
	t.secrets.Apply([]*xds.Resource{r})
	return nil
}

// credentials returns those of a connection by socket.
func (socketMode) credentials() grpccredentials.TransportCredentials {
	return insecure.NewCredentials()
}

// callers is what callers are trusted by until the control plane says; by a
// socket it may never say.
func (m socketMode) callers() extauthz.Trust {
	if m {
		return untold{}
	}
	return nil
}

// untold trusts whom Envoy trusts.
type untold struct{}

func (untold) IsRevoked([sha256.Size]byte) bool { return false }
func (untold) HasAuthority(string) bool         { return true }
