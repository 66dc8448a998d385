package controlplane

import (
	"context"
	"errors"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/jose"
)

const (
	// maxRevocationTime bounds how long credentials are refused.
	maxRevocationTime = 10 * 365 * 24 * time.Hour
	// maxRevocationReason bounds what an operator can write beside it.
	maxRevocationReason = 256
)

// revokeCredentials revokes credentials of users and clients.
func (s *Server) revokeCredentials(ctx context.Context, r Revocation, by string) (RevocationStatus, error) {
	entry, err := s.credentialRevocation(r, by)
	if err != nil {
		return RevocationStatus{}, err
	}
	entry, err = s.revocations.add(entry)
	return s.revocationChanged(ctx, "credentials revoked", entry, by, r.Reason, err)
}

// undoRevocation lets credentials in again.
func (s *Server) undoRevocation(ctx context.Context, id, by string) (RevocationStatus, error) {
	entry, err := s.revocations.undo(id)
	if entry.ID == "" {
		return RevocationStatus{}, err
	}
	return s.revocationChanged(ctx, "revocation of credentials undone", entry, by, "", err)
}

// credentialRevocation is what an operator asks for.
func (s *Server) credentialRevocation(r Revocation, by string) (CredentialRevocation, error) {
	now := time.Now().UTC()
	entry := CredentialRevocation{Target: r.Target, Before: r.Before.UTC(), Revoked: now, By: by, Reason: r.Reason}
	for _, name := range []string{r.Subject, r.JTI, r.Client, r.Tenant} {
		if name != "" && !jose.IsIdentifier(name) {
			return entry, invalidf("%q is nothing that a credential can say: it is too long, begins or ends in a space, or cannot be printed", name)
		}
	}
	if len(r.Reason) > maxRevocationReason {
		return entry, invalidf("reason of %d bytes: at most %d are kept", len(r.Reason), maxRevocationReason)
	}
	if r.Before.After(now.Add(maxRevocationTime)) {
		return entry, invalidf("before %s: that is more than ten years ahead", r.Before.Format(time.RFC3339))
	}
	if r.For != "" {
		d, err := time.ParseDuration(r.For)
		if err != nil || d <= 0 || d > maxRevocationTime {
			return entry, invalidf("for %q: write a duration of at most ten years, such as 24h", r.For)
		}
		entry.Expires, entry.Fixed = now.Add(d), true
	}
	var err error
	entry.Issuer, err = s.revocations.resolve(r.Provider, r.Issuer)
	return entry, err
}

// revocationChanged takes down what became of a change, and waits for the
// proxies to take it.
func (s *Server) revocationChanged(ctx context.Context, event string, r CredentialRevocation, by, reason string, err error) (RevocationStatus, error) {
	s.record(event, r.String(), by, reason, err)
	if err != nil && !errors.Is(err, errUnsavedRevocation) {
		return RevocationStatus{}, err
	}
	s.log.Warn("revocations changed", "event", event, "subject", r.String(), "id", r.ID, "before", r.Before, "expires", r.Expires, "by", by, "reason", reason)
	status := RevocationStatus{Certificates: []RevokedCertificate{}, Credentials: &r}
	if err != nil {
		status.Unsaved = err.Error()
	}
	sequence, _ := s.revocations.newest()
	s.awaitProxies(ctx, &status, taking{"revocations", sequence, (*chancerypb.ReportRequest).GetRevocationsSequence}, nil)
	return status, nil
}
