package controlplane

import (
	"context"
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
)

// TokenStatus is one join token that has not ended; not the token itself.
type TokenStatus struct {
	ID string `json:"id"`
	// Workload is who may join with it, "gateway/<name>" or "service/<name>".
	Workload string    `json:"workload"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	// Used is when an agent joined with it. From then on it is of use to that
	// agent alone.
	Used time.Time `json:"used,omitzero"`
}

// NewToken is a join token and the secret, which is told this once.
type NewToken struct {
	TokenStatus
	Secret string `json:"secret,omitempty"`
}

// tokenRequest asks for a join token.
type tokenRequest struct {
	Workload string `json:"workload"`
	TTL      string `json:"ttl"`
}

// createToken makes a join token for a workload that a document speaks of: no
// other may join.
func (s *Server) createToken(_ context.Context, q tokenRequest, by string) (NewToken, error) {
	authority, err := s.certificateAuthority()
	if err != nil {
		return NewToken{}, err
	}
	id, err := identity.ParseWorkload(q.Workload)
	if err != nil {
		return NewToken{}, invalidf("%v", err)
	}
	ttl, err := time.ParseDuration(q.TTL)
	if err != nil || ttl < attest.MinTTL || ttl > attest.MaxTTL {
		return NewToken{}, invalidf("time to live %q: write a duration from %v to %v, such as 10m", q.TTL, attest.MinTTL, attest.MaxTTL)
	}
	if !s.views.has(id) {
		return NewToken{}, notFoundf("no document speaks of %s: it could not join", id)
	}
	secret, token, err := s.tokens.Create(id, ttl, identity.PinsOfRoots(authority.Trust().GetRoots()), by)
	if err != nil {
		return NewToken{}, err
	}
	return NewToken{TokenStatus: tokenStatus(token), Secret: secret}, nil
}

func (s *Server) listTokens() ([]TokenStatus, error) {
	all := []TokenStatus{}
	for _, token := range s.tokens.List() {
		all = append(all, tokenStatus(token))
	}
	return all, nil
}

// tokensOf returns the IDs of the tokens that some workloads could join with.
func (s *Server) tokensOf(workloads []identity.ID) (ids []string) {
	for _, token := range s.tokens.List() {
		if token.Used.IsZero() && slices.Contains(workloads, token.Workload) {
			ids = append(ids, token.ID)
		}
	}
	return ids
}

func tokenStatus(t attest.Token) TokenStatus {
	return TokenStatus{ID: t.ID, Workload: t.Workload.String(), Created: t.Created, Expires: t.Expires, Used: t.Used}
}

// record takes down what somebody did, or could not.
func (s *Server) record(event, subject, by, reason string, err error) {
	e := audit.Event{Event: event, Subject: subject, By: by, Outcome: audit.Done, Reason: reason}
	if err != nil {
		e.Outcome, e.Details = audit.Failed, map[string]string{"error": err.Error()}
	}
	s.audit.Record(e)
}
