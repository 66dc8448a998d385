package commandsocket_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-mesh/chancery/internal/commandsocket"
)

func TestAsk(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "command")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) { commandsocket.Answer(w, "orders") })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 7 {
			http.Error(w, "not what was sent", http.StatusBadRequest)
			return
		}
		commandsocket.Answer(w, "seven")
	})
	var answer string
	if err := commandsocket.Ask(t.Context(), dir, "/name", nil, &answer); err == nil {
		t.Error("nobody answered")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- commandsocket.Serve(ctx, dir, mux) }()
	for commandsocket.Ask(t.Context(), dir, "/name", nil, &answer) != nil {
		if t.Context().Err() != nil {
			t.Fatal("no answer")
		}
	}
	if answer != "orders" {
		t.Errorf("name is %q", answer)
	}
	if err := commandsocket.Ask(t.Context(), dir, "/echo", "seven", &answer); err != nil || answer != "seven" {
		t.Errorf("echo is %q, %v", answer, err)
	}
	if err := commandsocket.Ask(t.Context(), dir, "/echo", "other", &answer); err != nil {
		t.Errorf("of the same length: %v", err)
	}
	if err := commandsocket.Ask(t.Context(), dir, "/echo", "longer", &answer); err == nil || errors.Is(err, commandsocket.ErrNotFound) {
		t.Errorf("a bad question: %v", err)
	}
	if err := commandsocket.Ask(t.Context(), dir, "/other", nil, &answer); !errors.Is(err, commandsocket.ErrNotFound) {
		t.Errorf("another question: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "agent.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
