package decisions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/commandsocket"
)

// ErrNotFound says that a decision is not remembered.
var ErrNotFound = commandsocket.ErrNotFound

// Find asks the process of a state directory about a decision that it made. An
// error is [ErrNotFound] if it does not remember it.
func Find(ctx context.Context, stateDir, id string) (audit.Explained, error) {
	var d audit.Explained
	err := commandsocket.Ask(ctx, stateDir, "/decisions/"+url.PathEscape(id), nil, &d)
	return d, err
}

// Last asks the process of a state directory for the last decisions that it made,
// newest first, or for the last denials.
func Last(ctx context.Context, stateDir string, limit uint16, denied bool) ([]audit.Explained, error) {
	var d []audit.Explained
	err := commandsocket.Ask(ctx, stateDir, fmt.Sprintf("/decisions?limit=%d&denied=%t", limit, denied), nil, &d)
	return d, err
}

// Suppose asks the process of a state directory how it would decide about a
// request that has not happened.
func Suppose(ctx context.Context, stateDir string, h *extauthz.Hypothesis) (audit.Explained, error) {
	var d audit.Explained
	err := commandsocket.Ask(ctx, stateDir, "/decisions", h, &d)
	return d, err
}

// Supposer decides about a request that has not happened, and leaves in what it
// returns what may be told.
type Supposer func(context.Context, *extauthz.Hypothesis) (audit.Explained, error)

// Supposing has server decide about requests that have not happened.
func (k *Keeper) Supposing(server *extauthz.Server) Supposer {
	return func(ctx context.Context, h *extauthz.Hypothesis) (audit.Explained, error) {
		e, err := k.Explain(server.Explain(ctx, h))
		e.Hypothetical = true
		return e, err
	}
}

// Handle answers such questions.
func (k *Keeper) Handle(mux *http.ServeMux, suppose Supposer) {
	mux.HandleFunc("GET /decisions", k.tellLast)
	mux.HandleFunc("GET /decisions/{id}", k.tell)
	mux.HandleFunc("POST /decisions", suppose.answer)
}

func (k *Keeper) tell(w http.ResponseWriter, r *http.Request) {
	d, ok := k.config.Ring.Find(r.PathValue("id"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	commandsocket.Answer(w, d)
}

func (k *Keeper) tellLast(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.ParseUint(r.FormValue("limit"), 10, 16)
	if err != nil {
		http.Error(w, "limit is not a number", http.StatusBadRequest)
		return
	}
	var wanted func(*audit.Explained) bool
	if r.FormValue("denied") == "true" {
		wanted = func(e *audit.Explained) bool { return e.Decision.Decision == audit.Deny }
	}
	// None is an empty list.
	commandsocket.Answer(w, append([]audit.Explained{}, k.config.Ring.Last(int(limit), wanted)...))
}

const (
	// maxHypothesis bounds a request that has not happened: as much as Envoy takes
	// of headers, and a body.
	maxHypothesis = 4 << 20
	// supposeFor bounds how long it may take to decide about it.
	supposeFor = 10 * time.Second
)

func (suppose Supposer) answer(w http.ResponseWriter, r *http.Request) {
	var h extauthz.Hypothesis
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHypothesis)).Decode(&h); err != nil {
		http.Error(w, "not a request", http.StatusBadRequest) // the cause might quote a token
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), supposeFor)
	defer cancel()
	e, err := suppose(ctx, &h)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	commandsocket.Answer(w, e)
}
