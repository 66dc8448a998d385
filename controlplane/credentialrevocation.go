package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// CredentialRevocation refuses credentials by what they say.
type CredentialRevocation struct {
	ID string `json:"id"`
	Target
	// Issuer is whose credentials are meant, and Providers the names of its
	// documents, those of before among them; empty is all credentials, API keys,
	// Basic users and client certificates as well.
	Issuer    string   `json:"issuer,omitempty"`
	Providers []string `json:"providers,omitempty"`
	// Before is the last time of issue that is meant. What does not tell when it
	// was issued is meant in any case.
	Before time.Time `json:"before"`
	// Expires is when it ends: by default when nothing can match it any more.
	Expires time.Time `json:"expires"`
	// Fixed says that an operator chose the end.
	Fixed bool `json:"fixed,omitempty"`
	// Revoked says when, By by whom, and Reason why.
	Revoked time.Time `json:"revoked"`
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
}

// Target says which credentials are meant; exactly one of its fields is given.
type Target struct {
	// Subject is the user, as the claim names them that the provider's document
	// maps.
	Subject string `json:"subject,omitempty"`
	// JTI is a token's own ID.
	JTI    string `json:"jti,omitempty"`
	Client string `json:"client,omitempty"`
	Tenant string `json:"tenant,omitempty"`
}

// given returns what is, as "subject alice".
func (t Target) given() []string {
	var given []string
	for _, field := range []struct{ word, value string }{
		{"subject", t.Subject}, {"jti", t.JTI}, {"client", t.Client}, {"tenant", t.Tenant},
	} {
		if field.value != "" {
			given = append(given, field.word+" "+field.value)
		}
	}
	return given
}

// String is "subject alice".
func (t Target) String() string { return strings.Join(t.given(), ", ") }

// String says what is revoked, for people.
func (r CredentialRevocation) String() string {
	if r.Issuer == "" {
		return r.Target.String()
	}
	return r.Target.String() + " of " + r.Issuer
}

// id returns the one ID of all revocations of the same.
func (r CredentialRevocation) id() string {
	sum := sha256.Sum256([]byte(r.Issuer + "\x00" + r.Target.String()))
	return hex.EncodeToString(sum[:8])
}

// message returns what PDPs are sent.
func (r CredentialRevocation) message() *chancerypb.Revocation {
	m := &chancerypb.Revocation{
		Id: r.ID, Providers: r.Providers, Before: timestamppb.New(r.Before), Expires: timestamppb.New(r.Expires),
	}
	switch {
	case r.Subject != "":
		m.Whose = &chancerypb.Revocation_Subject{Subject: r.Subject}
	case r.JTI != "":
		m.Whose = &chancerypb.Revocation_Token{Token: r.JTI}
	case r.Client != "":
		m.Whose = &chancerypb.Revocation_Client{Client: r.Client}
	case r.Tenant != "":
		m.Whose = &chancerypb.Revocation_Tenant{Tenant: r.Tenant}
	}
	return m
}
