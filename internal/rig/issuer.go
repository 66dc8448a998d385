package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// Issuer is the running OpenID provider.
type Issuer struct {
	*Process
	Address netip.AddrPort
	// MintAddress mints whatever it is asked for.
	MintAddress netip.AddrPort
}

func (r *Rig) startIssuer(ctx context.Context) error {
	address, err := r.ports.next()
	if err != nil {
		return err
	}
	mint, err := r.ports.next()
	if err != nil {
		return err
	}
	p, err := r.run("issuer", r.programs.Shop, "issuer", "-listen", address.String(), "-mint", mint.String())
	if err != nil {
		return err
	}
	r.Issuer = &Issuer{Process: p, Address: address, MintAddress: mint}
	return Until(ctx, 5*time.Second, func(ctx context.Context) error {
		_, err := r.Issuer.Token(ctx, nil)
		return err
	})
}

// Token returns a new access token. Claims replace the issuer's usual ones; nil
// removes one.
func (i *Issuer) Token(ctx context.Context, claims map[string]any) (string, error) {
	return i.mint(ctx, "/mint", claims)
}

// IDToken returns a new ID token of the same user.
func (i *Issuer) IDToken(ctx context.Context, claims map[string]any) (string, error) {
	return i.mint(ctx, "/mint-id", claims)
}

func (i *Issuer) mint(ctx context.Context, path string, claims map[string]any) (string, error) {
	if claims == nil {
		claims = map[string]any{}
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	token, err := call(ctx, http.DefaultClient, http.MethodPost, fmt.Sprintf("http://%s%s", i.MintAddress, path), body)
	if err != nil {
		return "", fmt.Errorf("mint a token: %w", err)
	}
	return string(bytes.TrimSpace(token)), nil
}
