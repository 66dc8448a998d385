package sidecar

import (
	"context"
	"net/http"

	"github.com/chancery-mesh/chancery/internal/commandsocket"
)

// serveCommands answers what commands ask until ctx ends.
func (a *Agent) serveCommands(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, _ *http.Request) { commandsocket.Answer(w, a.Identity()) })
	a.keeper.Handle(mux, a.keeper.Supposing(a.pdp.server))
	return commandsocket.Serve(ctx, a.config.StateDir, mux)
}

// FetchIdentity asks the agent of a state directory what it has.
func FetchIdentity(ctx context.Context, stateDir string) (Identity, error) {
	var id Identity
	err := commandsocket.Ask(ctx, stateDir, "/identity", nil, &id)
	return id, err
}
