package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// decisionKey is the file of the key that the decision log hashes with. Agents
// that shall have the same hashes are given the same file.
const decisionKey = "decisions.key"

// record keeps a decision, see [extauthz.Config].
func (a *Agent) record(r *extauthz.Record) error { return a.keeper.Record(r) }

// keepDecisions gets ready for decisions. They are written until finish is
// called, which waits for the last.
func (a *Agent) keepDecisions() (finish func(), err error) {
	key, err := readDecisionKey(a.config.path(decisionKey))
	if err != nil {
		return nil, err
	}
	a.keeper = decisions.New(decisions.Config{Log: a.decisionLog, Ring: a.ring, Key: key})
	if a.decisionLog == nil {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.decisionLog.Run(ctx); err != nil {
			a.log.Error("decision log ended badly", "err", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}

// readDecisionKey reads the key, or makes one.
func readDecisionKey(path string) ([]byte, error) {
	const size = 32
	key, err := identity.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, size)
		_, _ = rand.Read(key) // it never fails
		return key, atomicfile.Write(path, key, 0o600)
	}
	if err == nil && len(key) < size {
		err = fmt.Errorf("%s has %d bytes, and must have %d: remove it for a new one", path, len(key), size)
	}
	return key, err
}

// newDecisionLog returns nil where there is no sink.
func newDecisionLog(c Config) (*audit.DecisionLog, error) {
	if c.DecisionLog == nil {
		return nil, nil
	}
	return audit.NewDecisionLog(audit.DecisionLogConfig{
		Sink: c.DecisionLog, Logger: c.Logger, Registerer: c.Registerer,
		Agent: c.Identity.String(), Instance: c.Instance,
	})
}

// tellDecision tells a decision by its ID.
func (a *Agent) tellDecision(w http.ResponseWriter, r *http.Request) {
	d, ok := a.ring.Find(r.PathValue("id"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	answer(w, d)
}

// tellDecisions tells the last decisions.
func (a *Agent) tellDecisions(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.ParseUint(r.FormValue("limit"), 10, 16)
	if err != nil {
		http.Error(w, "limit is not a number", http.StatusBadRequest)
		return
	}
	var wanted func(*audit.Explained) bool
	if r.FormValue("denied") == "true" {
		wanted = func(e *audit.Explained) bool { return e.Decision.Decision == audit.Deny }
	}
	answer(w, append([]audit.Explained{}, a.ring.Last(int(limit), wanted)...)) // none is an empty list
}

// maxHypothesis bounds a request that has not happened: as much as Envoy takes of
// headers, and a body.
const maxHypothesis = 4 << 20

// tellHypothesis tells how a request would be decided.
func (a *Agent) tellHypothesis(w http.ResponseWriter, r *http.Request) {
	var h extauthz.Hypothesis
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHypothesis)).Decode(&h); err != nil {
		http.Error(w, "not a request", http.StatusBadRequest) // the cause might quote a token
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	e, err := a.keeper.Explain(a.pdp.server.Explain(ctx, &h))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	e.Hypothetical = true
	answer(w, e)
}

// ExplainRequest asks the agent of a state directory how it would decide a request
// that has not happened.
func ExplainRequest(ctx context.Context, stateDir string, h *extauthz.Hypothesis) (audit.Explained, error) {
	var d audit.Explained
	err := ask(ctx, stateDir, "/decisions", h, &d)
	return d, err
}

// FetchDecision asks the agent of a state directory about a decision. An error
// is [ErrNotFound] if it does not remember it.
func FetchDecision(ctx context.Context, stateDir, id string) (audit.Explained, error) {
	var d audit.Explained
	err := ask(ctx, stateDir, "/decisions/"+url.PathEscape(id), nil, &d)
	return d, err
}

// FetchDecisions asks the agent of a state directory for its last decisions,
// newest first, or its last denials.
func FetchDecisions(ctx context.Context, stateDir string, limit uint16, denied bool) ([]audit.Explained, error) {
	var d []audit.Explained
	err := ask(ctx, stateDir, fmt.Sprintf("/decisions?limit=%d&denied=%t", limit, denied), nil, &d)
	return d, err
}
