package idptest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/tooltest"
	"github.com/chancery-mesh/chancery/mesh"
)

// Keycloak has a realm of its own for the test. Its opaque tokens are what it
// calls lightweight: JWTs that say next to nothing.
type Keycloak struct {
	*process
	endpoints
	admin keycloakAdmin
	// generation counts the keys of the realm.
	generation int
}

var _ Provider = (*Keycloak)(nil)

const (
	realm          = "shop"
	keycloakStarts = 5 * time.Minute // on a machine that does much else
)

// StartKeycloak runs one, which [tooltest.Path] finds, until the test ends.
func StartKeycloak(t testing.TB) *Keycloak {
	t.Helper()
	path := tooltest.Path(t, "keycloak", "run `make test-keycloak`")
	address, password := freeAddress(t), rand.Text()
	base := "http://" + address
	_, port, _ := strings.Cut(address, ":")
	cmd := exec.Command(path, "start", "--optimized", "--cache=local", "--http-enabled=true", "--http-host=127.0.0.1",
		"--http-port="+port, "--hostname="+base)
	cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD="+password)
	k := &Keycloak{process: run(t, cmd)}
	for deadline := time.Now().Add(keycloakStarts); ; time.Sleep(200 * time.Millisecond) {
		status, _, _, err := try(http.DefaultClient, newRequest(t, http.MethodGet, base+"/realms/master", nil))
		if err == nil && status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("keycloak does not answer within %v: %v", keycloakStarts, err)
		}
	}
	k.admin = keycloakAdmin{base: base, password: password}
	k.setUp(t)
	k.endpoints = discover(t, base+"/realms/"+realm)
	return k
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// setUp makes the realm with its user and clients.
func (k *Keycloak) setUp(t testing.TB) {
	t.Helper()
	k.admin.do(t, http.MethodPost, "", object{"realm": realm, "enabled": true, "sslRequired": "none", "accessTokenLifespan": 300}, nil)
	k.Rotate(t, false)
	k.admin.do(t, http.MethodPost, "/client-scopes", object{
		"name": Scope, "protocol": "openid-connect", "attributes": object{"include.in.token.scope": "true"},
	}, nil)
	k.admin.do(t, http.MethodPost, "/groups", object{"name": Group}, nil)
	k.admin.do(t, http.MethodPost, "/users", object{
		"username": User, "enabled": true, "email": User + "@shop.test", "firstName": User, "lastName": User, "groups": []string{Group},
		"credentials": []object{{"type": "password", "value": Secret(User)}},
	}, nil)
	for _, client := range []string{WebClient, BatchClient, APIClient} {
		k.admin.do(t, http.MethodPost, "/clients", object{
			"clientId": client, "secret": Secret(client), "protocol": "openid-connect", "publicClient": false, "standardFlowEnabled": false,
			"directAccessGrantsEnabled": client == WebClient, "serviceAccountsEnabled": client == BatchClient,
			"defaultClientScopes": []string{"basic", Scope}, "protocolMappers": mappers,
		}, nil)
	}
}

// object is of JSON.
type object map[string]any

// mappers put into tokens what Chancery wants to read there.
var mappers = []object{
	mapper("audience", "oidc-audience-mapper", object{"included.custom.audience": Audience}),
	mapper("tenant", "oidc-hardcoded-claim-mapper", object{
		"claim.name": "tenant", "claim.value": Tenant, "jsonType.label": "String", "id.token.claim": "true",
	}),
	mapper("groups", "oidc-group-membership-mapper", object{"claim.name": "groups", "full.path": "false", "id.token.claim": "true"}),
}

func mapper(name, kind string, config object) object {
	config["access.token.claim"], config["introspection.token.claim"] = "true", "true"
	return object{"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config}
}

// Document implements Provider.
func (k *Keycloak) Document() *mesh.IdentityProvider { return document("keycloak", k.Issuer) }

// Login implements Provider.
func (k *Keycloak) Login(t testing.TB, user string, kind Kind) Tokens {
	t.Helper()
	k.give(t, WebClient, kind)
	return k.grant(t, WebClient, url.Values{
		"grant_type": {"password"}, "username": {user}, "password": {Secret(user)}, "scope": {"openid"},
	})
}

// ClientToken implements Provider.
func (k *Keycloak) ClientToken(t testing.TB, kind Kind) string {
	t.Helper()
	k.give(t, BatchClient, kind)
	return k.grant(t, BatchClient, url.Values{"grant_type": {"client_credentials"}}).Access
}

// give has a client get tokens of a kind from now on.
func (k *Keycloak) give(t testing.TB, client string, kind Kind) {
	t.Helper()
	var found []object
	k.admin.do(t, http.MethodGet, "/clients?clientId="+client, nil, &found)
	found[0]["attributes"].(map[string]any)["client.use.lightweight.access.token.enabled"] = fmt.Sprint(kind == Opaque)
	k.admin.do(t, http.MethodPut, fmt.Sprint("/clients/", found[0]["id"]), found[0], nil)
}

// Rotate implements Provider.
func (k *Keycloak) Rotate(t testing.TB, keep bool) {
	t.Helper()
	const kind = "org.keycloak.keys.KeyProvider"
	var before []struct{ ID, ProviderID string }
	k.admin.do(t, http.MethodGet, "/components?type="+kind, nil, &before)
	k.generation++
	k.admin.do(t, http.MethodPost, "/components", object{
		"name": fmt.Sprintf("rs256-%d", k.generation), "providerId": "rsa-generated", "providerType": kind,
		"config": map[string][]string{"priority": {fmt.Sprint(200 + k.generation)}, "algorithm": {"RS256"}, "keySize": {"2048"}},
	}, nil)
	for _, c := range before {
		if !keep && c.ProviderID == "rsa-generated" {
			k.admin.do(t, http.MethodDelete, "/components/"+c.ID, nil, nil)
		}
	}
}

// keycloakAdmin speaks with Keycloak's admin API about the realm.
type keycloakAdmin struct{ base, password string }

// token lives for a minute.
func (a *keycloakAdmin) token(t testing.TB) string {
	t.Helper()
	req := newRequest(t, http.MethodPost, a.base+"/realms/master/protocol/openid-connect/token", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {a.password},
	})
	var answer struct {
		Token string `json:"access_token"`
	}
	ask(t, http.DefaultClient, req, &answer)
	return answer.Token
}

// do makes a request below the realm; without a path, it makes the realm.
func (a *keycloakAdmin) do(t testing.TB, method, path string, body, v any) {
	t.Helper()
	at := a.base + "/admin/realms"
	if path != "" {
		at += "/" + realm + path
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, at, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+a.token(t))
	ask(t, http.DefaultClient, req, v)
}
