package sidecar

import (
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
)

// isOfNow reports whether a resource is of accounts as the documents have them
// now, whatever the revision.
func isOfNow(typeURL, name string) bool {
	_, version := xds.Unpin(name)
	return typeURL == accountsType && version == ""
}

// accountsFor returns the accounts that a policy refers to: all of them or none,
// since some API keys do not tell whether a key is known. Whom the documents of now
// no longer let in, no policy does: one may decide for long where Envoy refuses
// what came after it.
func accountsFor(policy *chancerypb.Policy, held set) []*chancerypb.Accounts {
	var all []*chancerypb.Accounts
	for _, name := range policy.GetAccounts() {
		accounts := accountsIn(held[name])
		if accounts == nil {
			return nil
		}
		unpinned, version := xds.Unpin(name)
		if now := held[unpinned]; version != "" && (now == nil || now.Version != version) {
			withdraw(accounts, accountsIn(now))
		}
		all = append(all, accounts)
	}
	return all
}

func accountsIn(r *xds.Resource) *chancerypb.Accounts {
	if r == nil {
		return nil
	}
	m, err := decode(r)
	if err != nil {
		return nil // it was decoded when it came
	}
	return m.(*chancerypb.Accounts)
}

// withdraw ends those of accounts that are let in no more; nil lets in nobody. It
// gives nobody anything.
func withdraw(accounts, now *chancerypb.Accounts) {
	clients := map[string]*chancerypb.Client{}
	for _, c := range now.GetClients().GetClients() {
		clients[c.GetId()] = c
	}
	for _, c := range accounts.GetClients().GetClients() {
		switch today := clients[c.GetId()]; {
		case now != nil && today == nil:
			c.Apis = nil // it is not registered any more, and forbidden nothing else
		default:
			c.Active = c.Active && today.GetActive()
		}
	}
	keys := map[string]*chancerypb.APIKey{}
	for _, k := range now.GetApiKeys().GetApiKeys() {
		keys[k.GetId()] = k
	}
	for _, k := range accounts.GetApiKeys().GetApiKeys() {
		today := keys[k.GetId()]
		k.Revoked = k.Revoked || today.GetRevoked() || today.GetHash() != k.GetHash()
		if end := today.GetExpires(); end != nil && (k.Expires == nil || end.AsTime().Before(k.Expires.AsTime())) {
			k.Expires = end
		}
	}
	users := map[string]*chancerypb.User{}
	for _, u := range now.GetUsers().GetUsers() {
		users[u.GetName()] = u
	}
	for _, u := range accounts.GetUsers().GetUsers() {
		today := users[u.GetName()]
		u.Disabled = u.Disabled || today.GetDisabled() || today.GetPassword() != u.GetPassword()
	}
}
