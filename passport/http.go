package passport

import (
	"context"
	"net/http"
)

type contextKey struct{}

// NewContext returns a context whose outgoing calls carry p. A Passport that
// was not verified has no [Passport.Token] to carry.
func NewContext(ctx context.Context, p *Passport) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext returns the Passport of the request that ctx belongs to.
func FromContext(ctx context.Context) (*Passport, bool) {
	p, ok := ctx.Value(contextKey{}).(*Passport)
	return p, ok && p != nil
}

// Middleware lets through requests with exactly one valid Passport, which the
// handler finds by [FromContext], and answers 401 to others.
func Middleware(v *Verifier) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tokens := r.Header.Values(Header)
			if len(tokens) != 1 {
				unauthorized(w)
				return
			}
			p, err := v.Verify(tokens[0])
			if err != nil {
				unauthorized(w)
				return
			}
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), p)))
		})
	}
}

// unauthorized does not say why: the caller needs no help in guessing.
func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", Header)
	http.Error(w, "access denied", http.StatusUnauthorized)
}

// Transport adds the Passport and the request's id to requests whose context
// comes from [Middleware]. Use it for calls into the mesh only. A request that
// follows a redirect gets neither, since it may lead elsewhere.
type Transport struct {
	// Base makes the requests. Default [http.DefaultTransport].
	Base http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if p, ok := FromContext(r.Context()); ok && p.token != "" && r.Response == nil {
		r = r.Clone(r.Context())
		r.Header.Set(Header, p.token)
		r.Header.Set(RequestIDHeader, p.ID)
	}
	return base.RoundTrip(r)
}
