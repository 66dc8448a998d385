package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/extauthz/standalone"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/passport"
)

// documentsFlags are those of decisions that are made by documents.
type documentsFlags struct {
	dir, gateway, passportKey, secrets string
}

func (f *documentsFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "documents", "", "directory of the documents")
	flags.StringVar(&f.gateway, "gateway", "", "name of the Gateway document (default the only one)")
	flags.StringVar(&f.passportKey, "passport-key", "", "private key that signs Passports: Ed25519 or ECDSA P-256, PKCS #8 in PEM, mode 0600 (default none are made)")
	flags.StringVar(&f.secrets, "secrets", "", secretsUsage)
}

// fromDocuments are decisions by documents.
type fromDocuments struct {
	*standalone.PDP
	*extauthz.Server
	signer *passport.Signer
}

func (f *documentsFlags) open(state string, kept *keptDecisions, logger *slog.Logger, metrics prometheus.Registerer) (d fromDocuments, err error) {
	signer, err := readSigner(f.passportKey)
	if err != nil {
		return d, err
	}
	introspector, err := introspection.New(introspection.Config{
		Secret: introspection.Secrets(f.secrets), Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return d, err
	}
	server, err := extauthz.New(extauthz.Config{
		Logger: logger, Registerer: metrics, Signer: func() *passport.Signer { return signer }, Introspector: introspector,
		Record: kept.Record,
	})
	if err != nil {
		return d, err
	}
	pdp, err := standalone.New(standalone.Config{
		Documents: f.dir, Gateway: f.gateway, Server: server, Mints: signer != nil, Logger: logger, Registerer: metrics,
		Providers: provider.Config{Dir: state, Logger: logger, Registerer: metrics},
	})
	return fromDocuments{pdp, server, signer}, err
}

// readSigner reads the key that signs Passports; nil if there is no path.
func readSigner(path string) (*passport.Signer, error) {
	if path == "" {
		return nil, nil
	}
	data, err := identity.ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("--passport-key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("--passport-key %s: is no private key in PEM: make one with openssl genpkey -algorithm ed25519", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("--passport-key %s: is no PKCS #8 key", path) // the parser might tell of it
	}
	private, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("--passport-key %s: cannot sign", path)
	}
	signer, err := passport.NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("--passport-key %s: %w", path, err)
	}
	return signer, nil
}

func (d fromDocuments) Ready() error {
	if !d.PDP.Ready() {
		return errors.Join(errNotReady, d.Fault())
	}
	return nil
}

// passportKeysGoodFor is how long whoever fetches the public key may use it.
const passportKeysGoodFor = 24 * time.Hour

// Handle serves the public half of the key that signs Passports, as a JWK Set.
func (d fromDocuments) Handle(mux *http.ServeMux) {
	if d.signer == nil {
		return
	}
	mux.HandleFunc("GET /passport-keys", func(w http.ResponseWriter, _ *http.Request) {
		keys, err := json.Marshal(d.PassportKeys(d.signer, time.Now().Add(passportKeysGoodFor)))
		if err != nil {
			http.Error(w, "keys not encoded", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(keys) // the client went away
	})
}

// makeStateDir makes a state directory, if there is to be one, or refuses one that
// others can enter: what is in it is believed, and its socket answers.
func makeStateDir(state string) error {
	if state == "" {
		return nil
	}
	if err := identity.PrivateDir(state); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	return nil
}

var errNotReady = errors.New("no valid documents yet")
