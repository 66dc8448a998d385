package translate

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// clientsName is that of the Accounts resource with all clients.
const clientsName = "clients"

// shards is how many resources the API keys are spread over: a key that is
// made or revoked sends the others of its shard again, and no more.
const shards = 32

// UsersName is that of the Accounts resource of a Users document.
func UsersName(document string) string { return "users/" + document }

func shardName(i int) string { return fmt.Sprintf("apikeys/%02d", i) }

func shardOf(key string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return shardName(int(h.Sum32() % shards))
}

// AccountNames returns which of [Accounts] a gateway decides by, sorted.
func AccountNames(g *mesh.Gateway) []string {
	names := map[string]bool{clientsName: true}
	for _, a := range g.Authentications() {
		for _, c := range a.AnyOf {
			if c.Basic != "" {
				names[UsersName(c.Basic)] = true
			}
			for i := 0; c.APIKey && i < shards; i++ {
				names[shardName(i)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Accounts returns all Accounts resources of a mesh, by name.
func Accounts(m *mesh.Mesh) map[string]*chancerypb.Accounts {
	clients, keys := &chancerypb.Clients{}, map[string]*chancerypb.APIKeys{}
	all := map[string]*chancerypb.Accounts{clientsName: {Of: &chancerypb.Accounts_Clients{Clients: clients}}}
	for i := range shards {
		keys[shardName(i)] = &chancerypb.APIKeys{}
		all[shardName(i)] = &chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: keys[shardName(i)]}}
	}
	for _, c := range m.Clients {
		clients.Clients = append(clients.Clients, &chancerypb.Client{
			Id: c.ID, Owner: c.Owner, Apis: c.APIs, Active: c.Active, Plan: c.Plan, Tenant: c.Tenant,
		})
	}
	for _, k := range m.APIKeys {
		shard := keys[shardOf(k.ID)]
		shard.ApiKeys = append(shard.ApiKeys, apiKey(k, m.Client(k.Client)))
	}
	for _, u := range m.Users {
		all[UsersName(u.Name)] = &chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: users(u)}}
	}
	return all
}

func apiKey(k *mesh.APIKey, of *mesh.Client) *chancerypb.APIKey {
	key := &chancerypb.APIKey{
		Id: k.ID, Client: k.Client, Owner: k.Owner, Scopes: k.Scopes, Tenant: cmp.Or(k.Tenant, of.Tenant), Hash: k.Hash, Revoked: k.Revoked,
	}
	if !k.Expires.IsZero() {
		key.Expires = timestamppb.New(k.Expires)
	}
	return key
}

func users(u *mesh.Users) *chancerypb.Users {
	users := &chancerypb.Users{Name: u.Name}
	for _, user := range u.Users {
		users.Users = append(users.Users, &chancerypb.User{
			Name: user.Name, Password: user.Password, Groups: user.Groups, Tenant: user.Tenant, Disabled: user.Disabled,
		})
	}
	return users
}
