package mesh

import (
	"encoding/json"
	"fmt"
	"time"
)

// Client is an application that is registered.
type Client struct {
	// ID is that of the OAuth client, the `client_id` of its tokens.
	ID string
	// Owner answers for it.
	Owner string
	// APIs are the services that it may call; empty is none.
	APIs []string
	// Active is false for one that may not come, for now.
	Active bool
	// Plan is for rate limits and logs, and Tenant whose it is; both may be
	// empty.
	Plan, Tenant string
}

// APIKey is a key that a client shows. The key itself is nowhere.
type APIKey struct {
	// ID is the part of the key that it is found by.
	ID string
	// Client is the ID of a Client, Owner who the key speaks for.
	Client, Owner string
	Scopes        []string
	Tenant        string
	// Hash is of the whole key: "sha256:" and 64 hexadecimal digits.
	Hash string
	// Expires is zero for a key that does not end.
	Expires time.Time
	// Revoked keys are refused.
	Revoked bool
}

// Users are people and programs that log in with Basic authentication.
type Users struct {
	Name  string
	Users []User
}

// User is one of [Users].
type User struct {
	Name string
	// Password is a hash: argon2id as a PHC string, or bcrypt.
	Password string
	Groups   []string
	Tenant   string
	// Disabled users are refused.
	Disabled bool
}

// Role is what groups of users may do. Groups come from credentials, roles from
// documents alone.
type Role struct {
	Name   string
	Groups []string
	// Permissions with those of the roles that it includes.
	Permissions []string
}

// Data is a set of values for rules.
type Data struct {
	Name string
	// JSON is an object.
	JSON []byte
}

// Answers say how a gateway or service answers.
type Answers struct {
	// DenyStatus is the HTTP status of all that is not let in for who asks;
	// zero tells those who should authenticate (401) from the others (403).
	DenyStatus uint32
	// MaxStaleness is how long decisions are made without word of the control
	// plane; zero has no end.
	MaxStaleness time.Duration
	// Data names the data sets that rules read.
	Data []string
}

func (s scope) answers(denyStatus uint32, maxStaleness duration, data []string) Answers {
	if denyStatus != 0 && denyStatus != 403 {
		s.fault("denyStatus", "must be 403, or not be there")
	}
	for i, name := range data {
		s.reference(fmt.Sprintf("data[%d]", i), name, KindData)
	}
	return Answers{DenyStatus: denyStatus, MaxStaleness: maxStaleness.std(), Data: data}
}

func (s scope) client(form *clientForm) *Client {
	for i, api := range form.APIs {
		s.reference(fmt.Sprintf("apis[%d]", i), api, KindService)
	}
	return &Client{
		ID: string(form.Name), Owner: string(form.Owner), APIs: form.APIs, Active: form.Active, Plan: form.Plan, Tenant: string(form.Tenant),
	}
}

func (s scope) apiKey(form *apiKeyForm) *APIKey {
	if document := s.reference("client", form.Client, KindClient); document != nil {
		if client := document.form.(*clientForm); form.Tenant != "" && client.Tenant != "" && form.Tenant != client.Tenant {
			s.fault("tenant", "is not that of %s (%q), so the key is always refused: remove it", document.describe(), client.Tenant)
		}
	}
	return form.apiKey()
}

func (form *apiKeyForm) apiKey() *APIKey {
	return &APIKey{
		ID: string(form.Name), Client: form.Client, Owner: string(form.Owner), Scopes: texts(form.Scopes), Tenant: string(form.Tenant),
		Hash: string(form.Hash), Expires: form.Expires.Time, Revoked: form.Revoked,
	}
}

func (s scope) users(form *usersForm) *Users {
	u := &Users{Name: s.name()}
	seen := map[userName]int{}
	for i, user := range form.Users {
		if first, ok := seen[user.Name]; ok {
			s.fault(fmt.Sprintf("users[%d].name", i), "is the name of users[%d], too: remove one", first)
		}
		seen[user.Name] = i
		u.Users = append(u.Users, User{
			Name: string(user.Name), Password: string(user.Password), Groups: texts(user.Groups), Tenant: string(user.Tenant), Disabled: user.Disabled,
		})
		if s.options.CheckPassword == nil || s.document.faulted(fmt.Sprintf("users[%d].password", i)) {
			continue
		}
		if err := s.options.CheckPassword(string(user.Password)); err != nil {
			s.fault(fmt.Sprintf("users[%d].password", i), "%v: make one with chancery password", err)
		}
	}
	return u
}

func (s scope) data(form *dataForm) *Data { return &Data{Name: s.name(), JSON: form.json()} }

func (form *dataForm) json() []byte {
	text, err := json.Marshal(form.Values)
	if err != nil {
		panic(err) // The decoder takes nothing that JSON has not.
	}
	return text
}
