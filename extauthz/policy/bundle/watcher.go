package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/breaker"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/dirwatch"
)

// Config says what a [Watcher] does.
type Config struct {
	// Location is the path of a file, or a URL: https, or http where a key
	// verifies what comes, or on this host. Required.
	Location string
	Options  Options
	// Loader gets each good bundle. Required.
	Loader *rego.Loader
	// StateDir keeps the last good bundle, so that a restart neither waits for
	// the server nor falls back behind it; empty keeps nothing.
	StateDir string
	// Poll is how often the server is asked; default 30s.
	Poll time.Duration
	// TokenFile holds a bearer token for the server; empty for none.
	TokenFile string
	// Client calls the server; nil is one with Go's defaults.
	Client *http.Client
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics of package breaker; nil for none.
	Registerer prometheus.Registerer
}

// Watcher keeps a policy up to date with its bundle. A bundle that is not good,
// or older than one that was in use, is refused, and the last good one stays.
type Watcher struct {
	Config
	url    *url.URL // nil for a file
	guard  *breaker.Guard
	client *http.Client

	// newest is the one that others must not be older than, loaded says which
	// one decides.
	newest *Bundle
	loaded [sha256.Size]byte
	etag   string
}

// ErrRollback says that a bundle is not newer than the one before it.
var ErrRollback = errors.New("rollback")

// stateFile is the last good bundle, in the directory of state.
const stateFile = "bundle.tar.gz"

// NewWatcher returns a Watcher, which [Watcher.Run] starts.
func NewWatcher(c Config) (*Watcher, error) {
	if c.Location == "" || c.Loader == nil || c.Logger == nil {
		return nil, errors.New("bundle watcher needs a location, a loader and a logger")
	}
	c.Poll = cmp.Or(c.Poll, 30*time.Second)
	w := &Watcher{
		Config: c,
		client: breaker.Restrict(cmp.Or(c.Client, &http.Client{Transport: http.DefaultTransport}), maxPacked),
		guard: breaker.New(breaker.Config{
			Name: "policy_bundle", Timeout: time.Minute, Logger: c.Logger, Registerer: c.Registerer,
		}),
	}
	if !strings.Contains(c.Location, "://") {
		return w, nil
	}
	u, err := url.Parse(c.Location)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return nil, fmt.Errorf("bundle: %q is not a URL with a host and without a password", redacted(c.Location))
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
	case u.Scheme == "http" && len(c.Options.Keys) > 0 && c.TokenFile == "":
	default:
		return nil, fmt.Errorf("bundle: %s://%s: use https; http will do for bundles that a key verifies, without a token", u.Scheme, u.Host)
	}
	w.url = u
	return w, nil
}

// redacted is what of a URL that cannot be parsed may be shown.
func redacted(location string) string {
	scheme, _, _ := strings.Cut(location, "://")
	return scheme + "://…"
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Run gets bundles until ctx ends. A file must be good from the beginning, unless
// there is one from before; a server is asked until it has a good one.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.restore(ctx); err != nil {
		return err
	}
	if w.url == nil {
		return w.watchFile(ctx)
	}
	for {
		if err := w.poll(ctx); err != nil && ctx.Err() == nil {
			w.Loader.Refuse(ctx, err)
		}
		wait := w.Poll - w.Poll/10 + rand.N(w.Poll/5+1) //nolint:gosec // G404: a spread need not be secret
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// restore loads the last good bundle.
func (w *Watcher) restore(ctx context.Context) error {
	if w.StateDir == "" {
		return nil
	}
	if err := os.MkdirAll(w.StateDir, 0o700); err != nil {
		return fmt.Errorf("bundle: keep state: %w", err)
	}
	data, err := readFile(filepath.Join(w.StateDir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		w.newest, err = Open(data, w.Options) // also if it is not good any more
	}
	if err == nil {
		err = w.offer(ctx, data)
	}
	if err != nil {
		w.Logger.WarnContext(ctx, "last good policy bundle not used", "err", err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPacked+1)) // unpack says if it is larger
}

func (w *Watcher) watchFile(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var last string // what was read, or why it was not
	var fault error
	dirs := func() []string { return []string{filepath.Dir(w.Location)} }
	err := dirwatch.Watch(ctx, w.Logger, dirs, func() {
		data, err := readFile(w.Location)
		read := fmt.Sprintf("%x %v", sha256.Sum256(data), err)
		if read == last {
			return
		}
		last = read
		if err == nil {
			err = w.offer(ctx, data)
		}
		switch {
		case err != nil && w.loaded == [sha256.Size]byte{}:
			fault = err
			end()
		case err != nil:
			w.Loader.Refuse(ctx, err)
		}
	})
	return errors.Join(err, fault)
}

// offer takes a bundle, or says why not.
func (w *Watcher) offer(ctx context.Context, data []byte) error {
	b, err := Open(data, w.Options)
	if err != nil {
		return err
	}
	if b.digest == w.loaded {
		w.Loader.Confirm()
		return nil
	}
	if err := w.checkNewer(b); err != nil {
		return err
	}
	if err := w.Loader.Load(ctx, b.Source); err != nil {
		return err
	}
	w.newest, w.loaded = b, b.digest
	w.keep(ctx, data)
	return nil
}

// checkNewer refuses what is not newer than the newest. Bundles that nobody
// signed say nothing of their age that could be believed.
func (w *Watcher) checkNewer(b *Bundle) error {
	if w.newest == nil || len(w.Options.Keys) == 0 || b.digest == w.newest.digest {
		return nil
	}
	switch order, err := b.Version.Compare(w.newest.Version); {
	case err != nil:
		return fmt.Errorf("%w: %w: %q follows %q", ErrRollback, err, b.Version, w.newest.Version)
	case order < 0:
		return fmt.Errorf("%w: %q is older than %q", ErrRollback, b.Version, w.newest.Version)
	case order == 0:
		return fmt.Errorf("%w: there was another bundle of version %q", ErrRollback, b.Version)
	}
	return nil
}

// keep writes the bundle down. It decides all the same where that fails.
func (w *Watcher) keep(ctx context.Context, data []byte) {
	if w.StateDir == "" {
		return
	}
	if err := atomicfile.Write(filepath.Join(w.StateDir, stateFile), data, 0o600); err != nil {
		w.Logger.ErrorContext(ctx, "policy bundle not kept", "err", err)
	}
}

// poll asks the server once.
func (w *Watcher) poll(ctx context.Context) error {
	a, err := breaker.Do(ctx, w.guard, w.fetch)
	switch {
	case err != nil:
		return fmt.Errorf("get bundle: %w", withoutQuery(err))
	case a.notModified:
		w.Loader.Confirm()
		return nil
	}
	if err := w.offer(ctx, a.data); err != nil {
		return err
	}
	w.etag = a.etag // of one that was taken: what is refused is got again
	return nil
}

// answer is what the server has to say.
type answer struct {
	notModified bool
	data        []byte
	etag        string
}

func (w *Watcher) fetch(ctx context.Context) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url.String(), nil)
	if err != nil {
		return answer{}, err
	}
	if w.etag != "" {
		req.Header.Set("If-None-Match", w.etag)
	}
	if w.TokenFile != "" {
		token, err := os.ReadFile(w.TokenFile)
		if err != nil {
			return answer{}, fmt.Errorf("read token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && w.etag != "":
		return answer{notModified: true}, nil
	case resp.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("%s answers %s", w.url.Host, resp.Status)
	}
	data, err := io.ReadAll(resp.Body)
	return answer{data: data, etag: resp.Header.Get("ETag")}, err
}

// withoutQuery takes the query out of an error's URL: it may be a credential.
func withoutQuery(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		e.URL, _, _ = strings.Cut(e.URL, "?")
	}
	return err
}
