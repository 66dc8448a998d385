package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/chancery-mesh/chancery/mesh"
)

// AdminSocket returns where the control plane that runs in runDir answers its
// operators.
func AdminSocket(runDir string) string { return filepath.Join(runDir, "admin.sock") }

// adminHandler answers on the admin socket. Whoever may open it sees the whole
// mesh, and decides who belongs to it.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Status()) })
	mux.HandleFunc("GET /proxies", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.proxyStatus()) })
	mux.HandleFunc("GET /instances", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.endpoints.instances(s.mesh())) })
	mux.HandleFunc("GET /ca", asks(s.authorityStatus))
	mux.HandleFunc("GET /identities", asks(s.identities))
	mux.HandleFunc("POST /ca/prepare", orders(s.prepareAuthority))
	for _, step := range []Step{StepActivate, StepTaint, StepRevoke} {
		mux.HandleFunc("POST /ca/"+string(step), orders(func(_ context.Context, q stepRequest, by string) (AuthorityStatus, error) {
			return s.stepAuthority(step, q, by)
		}))
	}
	mux.HandleFunc("POST /revoke", orders(s.revoke))
	mux.HandleFunc("POST /keys/refresh", orders(s.refreshKeys))
	mux.HandleFunc("GET /revocations", asks(func() ([]CredentialRevocation, error) { return s.revocations.list(), nil }))
	mux.HandleFunc("DELETE /revocations/{id}", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.undoRevocation(r.Context(), r.PathValue("id"), operator(r.Context()))
		writeAnswer(w, status, err)
	})
	mux.HandleFunc("GET /tokens", asks(s.listTokens))
	mux.HandleFunc("POST /tokens", orders(s.createToken))
	mux.HandleFunc("DELETE /tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		writeAnswer(w, struct{}{}, s.tokens.Delete(r.PathValue("id"), operator(r.Context())))
	})
	return mux
}

// mesh is what is served; nil before the first.
func (s *Server) mesh() *mesh.Mesh {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.documents.served == nil {
		return nil
	}
	return s.documents.served.mesh
}

// proxyStatus tells how each proxy stands. What it rejected is shown for as
// long as the document that caused it is in quarantine: by then the proxy has
// acknowledged something else, but what was written is not in force.
func (s *Server) proxyStatus() []ProxyStatus {
	proxies := s.proxies.status(s.views.latest)
	standing := s.standing()
	for i := range proxies {
		proxies[i].judge(standing)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range proxies {
		proxies[i].reject(s.documents.quarantine)
	}
	return proxies
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The client hung up, if anything; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// serveAdmin serves l until ctx ends.
func serveAdmin(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, ConnContext: withOperator}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}

// Handler serves what monitoring asks for, for an address that is not public:
// /healthz, /readyz and /metrics.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if s.cfg.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}))
	}
	return mux
}

// Ready reports whether agents are served all that they need, and otherwise
// what is waited for.
func (s *Server) Ready() error {
	s.mu.Lock()
	served := s.documents.served
	s.mu.Unlock()
	if served == nil {
		return errors.New("there are no valid documents yet")
	}
	return s.cfg.Registry.Ready()
}

// Status tells how the control plane is.
func (s *Server) Status() Status {
	status := Status{
		Version:   s.cfg.Version,
		Started:   s.started,
		Views:     s.views.status(),
		Services:  s.endpoints.status(),
		Providers: s.providers.Status(),
	}
	if err := s.Ready(); err != nil {
		status.NotReady = err.Error()
	}
	if authority, err := s.authorityStatus(); err == nil {
		status.Authority = &authority
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status.Documents = s.documents.status()
	status.Quarantine = s.documents.quarantine.status()
	return status
}
