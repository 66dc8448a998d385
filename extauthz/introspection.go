package extauthz

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// errNotIntrospected says that nobody could be asked about a token.
var errNotIntrospected = errors.New("token not introspected")

// confirm has the provider say of an access token that it is still good. A JWT's
// id is verified already, and that of an opaque one is nil. About a request that
// has not happened it is asked only if that is wanted.
func (c *check) confirm(ctx context.Context, p *provider, token string, id *credential.Identity, peer *credential.Certificate) (*credential.Identity, error) {
	if h := c.hypothesis; h != nil && !h.Introspect {
		if id == nil {
			return nil, fmt.Errorf("%w: %w", errNotIntrospected, errNotAsked)
		}
		c.note("introspection", p.GetName(), outcomeSkipped)
		return id, nil
	}
	told, err := c.introspect(ctx, p, token, peer)
	if err != nil {
		return nil, err
	}
	return confirmed(id, told)
}

// introspect asks the provider about an access token, which is shown by peer.
func (c *check) introspect(ctx context.Context, p *provider, token string, peer *credential.Certificate) (*credential.Identity, error) {
	if c.server.introspector == nil || p.GetIntrospection() == nil {
		return nil, errNotIntrospected
	}
	told, err := c.server.introspector.Introspect(ctx, p.Provider, token, c.IP, c.began)
	if _, ok := errors.AsType[credential.Reason](err); err != nil && !ok {
		return nil, fmt.Errorf("%w: %w", errNotIntrospected, err)
	}
	if err != nil {
		return nil, err
	}
	return told.ShownBy(peer)
}

// confirmed returns whom a token speaks for that was introspected. Of a JWT,
// which id is verified from, nothing else must be told: what counts is that it is
// still good.
func confirmed(id, told *credential.Identity) (*credential.Identity, error) {
	switch {
	case id == nil:
		return told, nil
	case told.User != id.User || told.Client != "" && told.Client != id.Client:
		return nil, credential.Mismatch
	}
	return id, nil
}
