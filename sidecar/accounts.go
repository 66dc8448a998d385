package sidecar

import (
	"slices"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// accountsFor returns the accounts that a policy refers to: all of them or none,
// since some API keys do not tell whether a key is known. Whom the newest policy
// no longer lets in is let in by no other: a policy may decide for long where
// Envoy refuses what came after it.
func accountsFor(policy, newest *chancerypb.Policy, held set) []*chancerypb.Accounts {
	accounts := named(held, policy.GetAccounts())
	if !slices.Equal(policy.GetAccounts(), newest.GetAccounts()) {
		if newer := named(held, newest.GetAccounts()); newer != nil {
			withdraw(accounts, newer)
		}
	}
	return accounts
}

// named returns the accounts of these names, or nil where one is not held.
func named(held set, names []string) []*chancerypb.Accounts {
	found := set{}
	for _, name := range names {
		if held[name] == nil {
			return nil
		}
		found[name] = held[name]
	}
	return decodeAll[*chancerypb.Accounts](found)
}

// withdraw ends those of accounts that newer ones do not let in. It gives nobody
// anything.
func withdraw(accounts, newer []*chancerypb.Accounts) {
	clients, keys, users := map[string]*chancerypb.Client{}, map[string]*chancerypb.APIKey{}, map[[2]string]*chancerypb.User{}
	for _, part := range newer {
		for _, c := range part.GetClients().GetClients() {
			clients[c.GetId()] = c
		}
		for _, k := range part.GetApiKeys().GetApiKeys() {
			keys[k.GetId()] = k
		}
		for _, u := range part.GetUsers().GetUsers() {
			users[[2]string{part.GetUsers().GetName(), u.GetName()}] = u
		}
	}
	for _, part := range accounts {
		for _, c := range part.GetClients().GetClients() {
			c.Active = c.Active && clients[c.GetId()].GetActive()
		}
		for _, k := range part.GetApiKeys().GetApiKeys() {
			now := keys[k.GetId()]
			k.Revoked = k.Revoked || now.GetRevoked() || now.GetHash() != k.GetHash()
			if end := now.GetExpires(); end != nil && (k.Expires == nil || end.AsTime().Before(k.Expires.AsTime())) {
				k.Expires = end
			}
		}
		for _, u := range part.GetUsers().GetUsers() {
			now := users[[2]string{part.GetUsers().GetName(), u.GetName()}]
			u.Disabled = u.Disabled || now.GetDisabled() || now.GetPassword() != u.GetPassword()
		}
	}
}
