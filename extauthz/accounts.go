package extauthz

import (
	"context"
	"net/netip"
	"slices"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// accounts are what documents say of who comes in. They are immutable.
type accounts struct {
	// clients by id, nil while they are not known.
	clients map[string]*chancerypb.Client
	// keys is nil while no API keys are known.
	keys *credential.APIKeys
	// users by the name of their document.
	users map[string]*credential.Users
}

func (s *State) addAccounts(list []*chancerypb.Accounts) error {
	a := &accounts{users: map[string]*credential.Users{}}
	var keys []credential.APIKey
	known := false
	for _, part := range list {
		switch part.GetOf().(type) {
		case *chancerypb.Accounts_Clients:
			a.clients = make(map[string]*chancerypb.Client)
			for _, c := range part.GetClients().GetClients() {
				a.clients[c.GetId()] = c
			}
		case *chancerypb.Accounts_ApiKeys:
			known = true
			keys = slices.Grow(keys, len(part.GetApiKeys().GetApiKeys()))
			for _, k := range part.GetApiKeys().GetApiKeys() {
				keys = append(keys, apiKey(k))
			}
		case *chancerypb.Accounts_Users:
			users, err := usersOf(part.GetUsers())
			if err != nil {
				return err
			}
			a.users[part.GetUsers().GetName()] = users
		}
	}
	s.accounts = a
	if !known {
		return nil
	}
	var err error
	a.keys, err = credential.NewAPIKeys(keys)
	return err
}

func apiKey(k *chancerypb.APIKey) credential.APIKey {
	key := credential.APIKey{
		ID: k.GetId(), Hash: k.GetHash(), Owner: k.GetOwner(), Client: k.GetClient(), Tenant: k.GetTenant(),
		Scopes: k.GetScopes(), Disabled: k.GetRevoked(),
	}
	if k.GetExpires() != nil {
		key.Expires = k.GetExpires().AsTime()
	}
	return key
}

func usersOf(u *chancerypb.Users) (*credential.Users, error) {
	list := make([]credential.User, 0, len(u.GetUsers()))
	for _, user := range u.GetUsers() {
		list = append(list, credential.User{
			Name: user.GetName(), Hash: user.GetPassword(), Groups: user.GetGroups(), Tenant: user.GetTenant(), Disabled: user.GetDisabled(),
		})
	}
	return credential.NewUsers(u.GetName(), list)
}

func (c *check) verifyAPIKey(_ context.Context, _ *alternative, found *credential.Found, _ *credential.Certificate) (*credential.Identity, verdict) {
	if c.state.accounts.keys == nil {
		return nil, c.conclude("api_key", "", noAccounts)
	}
	id, err := c.state.accounts.keys.Verify(found.APIKey, c.Time)
	if err != nil {
		return nil, c.refuse("api_key", "", err)
	}
	c.note("api_key", id.ID, outcomeOK)
	return id, allowed
}

func (c *check) verifyBasic(ctx context.Context, one *alternative, found *credential.Found, _ *credential.Certificate) (*credential.Identity, verdict) {
	users := c.state.accounts.users[one.users]
	if users == nil {
		return nil, c.conclude("basic", one.users, noAccounts)
	}
	// An address that cannot be read shares its limits with all such.
	address, _ := netip.ParseAddr(c.IP)
	id, err := c.passwords().Verify(ctx, users, found.Basic, address, c.Time)
	if err != nil {
		return nil, c.refuse("basic", one.users, err)
	}
	c.note("basic", one.users, outcomeOK)
	return id, allowed
}

// passwords are those whose throttles count the attempt.
func (c *check) passwords() *credential.Passwords {
	if c.hypothesis != nil {
		return c.server.supposed
	}
	return c.server.passwords
}

// checkClient judges the client of whoever came in by its document. One that
// has a document must be active and of the same tenant, wherever it comes; where
// the route asks for registered ones, it must have a document, which names the
// service.
func (c *check) checkClient(id *credential.Identity) verdict {
	switch {
	case c.state.accounts.clients == nil:
		return c.conclude("client", id.Client, noAccounts)
	case id.Client == "" && !c.rule.auth.registered:
		return allowed
	}
	client := c.state.accounts.clients[id.Client]
	if client == nil && !c.rule.auth.registered {
		return allowed
	}
	c.Plan = client.GetPlan()
	return c.conclude("client", id.Client, c.judgeClient(client, id))
}

func (c *check) judgeClient(client *chancerypb.Client, id *credential.Identity) verdict {
	switch {
	case client == nil:
		return clientUnknown
	case !client.GetActive():
		return clientInactive
	case client.GetTenant() != "" && client.GetTenant() != id.Tenant:
		return clientTenant
	case c.rule.auth.registered && !slices.Contains(client.GetApis(), c.rule.destination(c.params)):
		return clientForbidden
	}
	return allowed
}

// clientOf returns what rules read of a client.
func (a *accounts) clientOf(id string) (owner, plan string) {
	if a == nil {
		return "", ""
	}
	client := a.clients[id]
	return client.GetOwner(), client.GetPlan()
}
