// Package service is an application in the shop: what a service looks like that
// runs behind Chancery.
//
// It listens on loopback, where only its sidecar comes in. [passport.Middleware]
// turns away whoever has no valid Passport, and [passport.Transport] hands the
// Passport on in the calls that the service makes, through its sidecar's
// outbound listener. There is nothing else to it: no tokens, no certificates,
// no addresses of other services.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// Config says which service it is.
type Config struct {
	// Name is orders, inventory or payments; Instance distinguishes equals.
	Name, Instance string
	// Upstream is where the sidecar takes calls to other services, as in
	// "http://127.0.0.1:15001".
	Upstream string
	// Verifier judges Passports.
	Verifier *passport.Verifier
}

// Service is one instance of one of the shop's services.
type Service struct {
	Config
	client   *http.Client
	received ledger
}

// New returns the service of that name.
func New(c Config) (*Service, error) {
	if _, ok := operations[c.Name]; !ok {
		return nil, fmt.Errorf("the shop has no service %q", c.Name)
	}
	if c.Verifier == nil {
		return nil, errors.New("service needs a verifier of Passports")
	}
	// All calls go to one host, the sidecar.
	base := &http.Transport{MaxIdleConnsPerHost: 100}
	return &Service{
		Config: c,
		client: &http.Client{Transport: &passport.Transport{Base: base}, Timeout: 5 * time.Second},
	}, nil
}

// operation is what a service does for one route.
type operation struct {
	route string
	// takes is how long the work lasts.
	takes time.Duration
	// call is another service's route that is needed for it.
	call *call
}

// call names a route of another service. {id} stands for the request's own.
type call struct{ service, method, path string }

var operations = map[string][]operation{
	"orders": {
		{route: "GET /orders/{id}", call: &call{"inventory", "GET", "/stock/{id}"}},
		{route: "DELETE /orders/{id}"},
		{route: "POST /orders", call: &call{"inventory", "POST", "/stock/7/reservations"}},
	},
	"payments": {
		{route: "POST /payments/{id}", call: &call{"inventory", "GET", "/stock/{id}"}},
		// A mistake: only orders may reserve.
		{route: "POST /payments/{id}/refund", call: &call{"inventory", "POST", "/stock/{id}/reservations"}},
	},
	"inventory": {
		{route: "GET /stock/{id}"},
		{route: "POST /stock/{id}/reservations"},
		{route: "POST /stocktaking", takes: time.Second},
	},
}

// Handler serves the service's routes.
func (s *Service) Handler() http.Handler {
	routes := http.NewServeMux()
	for _, o := range operations[s.Name] {
		routes.HandleFunc(o.route, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, o) })
	}
	guarded := passport.Middleware(s.Verifier)(routes)

	mux := http.NewServeMux()
	mux.Handle("/", s.received.count(guarded))
	// No route of the mesh leads to these.
	mux.HandleFunc("GET /-/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.Handle("GET /-/received", &s.received)
	return mux
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, o operation) {
	answer := s.answer(r)
	if o.takes > 0 {
		select {
		case <-time.After(o.takes):
		case <-r.Context().Done():
			return
		}
	}
	if o.call != nil {
		upstream, err := s.ask(r.Context(), *o.call, r.PathValue("id"))
		if err != nil {
			http.Error(w, "upstream is away", http.StatusBadGateway)
			return
		}
		answer.Upstream = upstream
	}
	write(w, answer)
}

// ask calls another service. The context carries the Passport.
func (s *Service) ask(ctx context.Context, c call, id string) (*Upstream, error) {
	r, err := http.NewRequestWithContext(ctx, c.method, s.Upstream+expand(c.path, id), http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Host = c.service
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	u := &Upstream{Service: c.service, Status: resp.StatusCode}
	if resp.StatusCode == http.StatusOK {
		u.Answer = new(Answer)
		err = json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 64<<10)).Decode(u.Answer)
	}
	return u, err
}
