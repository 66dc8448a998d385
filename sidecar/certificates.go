package sidecar

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity/certfile"
	"github.com/chancery-mesh/chancery/internal/dirwatch"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// certificates serves Envoy the server certificates of a gateway, and who signs
// its clients' certificates, from the operator's files. Envoy gets those that its
// listeners ask for, once they are good, and keeps them when the files are not
// good any more. It is safe for concurrent use; nil serves none.
type certificates struct {
	dir             string
	allowSelfSigned bool
	secrets         *xds.Collection
	problem         func(subject, text string)
	log             *slog.Logger
	expiry, refused *prometheus.GaugeVec

	mu sync.Mutex
	// wanted are the secrets that listeners ask for, by name.
	wanted map[string]*wantedSecret
	// refuseSelfSigned is what the gateway's policy asks for.
	refuseSelfSigned bool
}

type wantedSecret struct {
	// told is what is wrong with the files, as it was told last.
	told string
	// selfSigned says that what is served is.
	selfSigned bool
}

// errSelfSigned keeps a demonstration's certificate from the public.
var errSelfSigned = errors.New("the certificate is self-signed, which no client of a public gateway can verify: " +
	"get one of an authority, or start the agent with --allow-self-signed where that is meant")

func newCertificates(c Config, secrets *xds.Collection, problem func(subject, text string)) *certificates {
	return &certificates{
		dir: c.Certificates, allowSelfSigned: c.AllowSelfSigned, secrets: secrets, problem: problem,
		log: c.Logger.With("component", "certificates"),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_certificate_expiry_timestamp_seconds",
			Help: "When a certificate that is served from the operator's files expires.",
		}, []string{"secret"}),
		refused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chancery_certificate_files_refused",
			Help: "Whether the operator's files are not good, so that what they held before is served, or nothing.",
		}, []string{"secret"}),
	}
}

// want serves, of the operator's files, what the listeners of some revisions
// ask for, by the policy of the first.
func (c *certificates) want(revisions ...*localRevision) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.wanted
	c.wanted = map[string]*wantedSecret{}
	for _, name := range listenerSecrets(revisions) {
		c.wanted[name] = cmp.Or(before[name], &wantedSecret{})
	}
	c.refuseSelfSigned = revisions[0].policy().GetMinting().GetRefuseSelfSigned() && !c.allowSelfSigned
	for name := range before {
		if c.wanted[name] == nil {
			c.forget(name)
		}
	}
	c.loadWanted()
}

// listenerSecrets returns the names of what listeners ask for beside the
// workload's own.
func listenerSecrets(revisions []*localRevision) []string {
	var resources []envoy.Resource
	for _, rev := range revisions {
		if rev == nil {
			continue
		}
		for _, m := range decodeAll[proto.Message](rev.local[resource.ListenerType]) {
			resources = append(resources, envoy.Resource{Message: m})
		}
	}
	return slices.DeleteFunc(envoy.SecretNames(resources), func(name string) bool { return !strings.Contains(name, "/") })
}

// forget serves a secret no more. The caller holds the lock.
func (c *certificates) forget(name string) {
	c.secrets.Apply(nil, name)
	c.expiry.DeleteLabelValues(name)
	c.refused.DeleteLabelValues(name)
	c.problem(name, "")
}

// ready reports which secrets listeners ask for that Envoy cannot have.
func (c *certificates) ready() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	served := c.secrets.Versions()
	var missing []error
	for _, name := range slices.Sorted(maps.Keys(c.wanted)) {
		if _, ok := served[name]; !ok {
			missing = append(missing, fmt.Errorf("no %s", name))
		}
	}
	return errors.Join(missing...)
}

// run reads the files whenever something happens to them, until ctx ends.
func (c *certificates) run(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return dirwatch.Watch(ctx, c.log, func() []string { return []string{c.dir} }, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.loadWanted()
	})
}

// loadWanted serves what is wanted and good. The caller holds the lock.
func (c *certificates) loadWanted() {
	for _, name := range slices.Sorted(maps.Keys(c.wanted)) {
		w := c.wanted[name]
		if w.selfSigned && c.refuseSelfSigned {
			c.secrets.Apply(nil, name) // it was good until a document said otherwise
			w.selfSigned = false
		}
		warning, err := c.serve(name, w)
		c.refused.WithLabelValues(name).Set(map[bool]float64{true: 1}[err != nil])
		if err != nil {
			warning = err.Error()
		}
		if warning == w.told {
			continue
		}
		w.told = warning
		c.problem(name, warning)
		if warning != "" {
			c.log.Error("certificate files not as they should be", "secret", name, "served", err == nil, "err", warning)
		}
	}
}

// serve reads one secret and hands it to Envoy. A warning is about one that is
// good.
func (c *certificates) serve(name string, w *wantedSecret) (warning string, err error) {
	f, err := c.read(name, time.Now())
	if err != nil {
		return "", err
	}
	r, err := xds.New(name, f.message)
	if err != nil {
		return "", err
	}
	if c.secrets.Versions()[name] != r.Version {
		c.secrets.Apply([]*xds.Resource{r})
		c.log.Info("certificate files served", "secret", name, "expires", f.ends)
	}
	w.selfSigned = f.selfSigned
	c.expiry.WithLabelValues(name).Set(float64(f.ends.Unix()))
	if time.Until(f.ends) < f.ends.Sub(f.begins)/6 {
		return fmt.Sprintf("it expires at %s and was not replaced", f.ends.Format(time.RFC3339)), nil
	}
	return "", nil
}

// fileSecret is a secret that was read from files, and how long it is good.
type fileSecret struct {
	message      proto.Message
	begins, ends time.Time
	selfSigned   bool
}

// read reads the files of one secret.
func (c *certificates) read(secret string, now time.Time) (*fileSecret, error) {
	_, name, _ := strings.Cut(secret, "/")
	switch {
	case c.dir == "":
		return nil, errors.New("the gateway's document asks for it: start the agent with --certificates DIR")
	case secret == envoy.TrustSecret(name):
		trust, err := certfile.ReadTrust(c.dir, name, now)
		if err != nil {
			return nil, err
		}
		first := slices.MinFunc(trust.Certificates, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		return &fileSecret{message: envoy.ClientTrust(secret, trust.PEM), begins: first.NotBefore, ends: first.NotAfter}, nil
	case secret == envoy.CertificateSecret(name):
		pair, err := certfile.ReadPair(c.dir, name, now)
		if err != nil {
			return nil, err
		}
		f := &fileSecret{envoy.KeyPair(secret, pair.Chain, pair.Key), pair.Leaf.NotBefore, pair.Leaf.NotAfter, pair.IsSelfSigned()}
		if f.selfSigned && c.refuseSelfSigned {
			return nil, errSelfSigned
		}
		return f, nil
	}
	return nil, errors.New("no files hold a secret of this kind")
}
