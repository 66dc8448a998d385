package service

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/chancery-mesh/chancery/passport"
)

// Answer is what a service replies: who it is and what reached it.
type Answer struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	// Passport is what the request's Passport says.
	Passport Passport `json:"passport"`
	// Caller is the workload that called, by its certificate.
	Caller string `json:"caller"`
	// Authorization says that the user's own credential came along.
	Authorization bool      `json:"authorization"`
	Upstream      *Upstream `json:"upstream,omitempty"`
}

// Upstream is what another service replied.
type Upstream struct {
	Service string  `json:"service"`
	Status  int     `json:"status"`
	Answer  *Answer `json:"answer,omitempty"`
}

// Passport shows a Passport's claims, never the Passport: who has that can use
// it.
type Passport struct {
	ID      string   `json:"id"`
	User    string   `json:"user"`
	Tenant  string   `json:"tenant"`
	Groups  []string `json:"groups"`
	Client  string   `json:"client"`
	Gateway string   `json:"gateway"`
}

func (s *Service) answer(r *http.Request) Answer {
	p, _ := passport.FromContext(r.Context()) // Middleware has seen to it
	return Answer{
		Service: s.Name, Instance: s.Instance,
		Passport: Passport{
			ID: p.ID, User: p.Subject, Tenant: p.Tenant, Groups: p.Groups, Client: p.Client, Gateway: p.Gateway,
		},
		Caller:        caller(r.Header.Get("X-Forwarded-Client-Cert")),
		Authorization: len(r.Header.Values("Authorization")) > 0,
	}
}

// caller finds the SPIFFE ID in the header that the sidecar writes, and only
// the sidecar can write.
func caller(xfcc string) string {
	for element := range strings.SplitSeq(xfcc, ";") {
		if id, ok := strings.CutPrefix(element, "URI="); ok {
			return id
		}
	}
	return ""
}

func expand(path, id string) string { return strings.ReplaceAll(path, "{id}", id) }

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client left: nobody to tell
}
