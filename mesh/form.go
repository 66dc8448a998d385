package mesh

// The forms are what operators write. Their tags are the one place that says
// what a key means: the decoder, the JSON Schema and the reference read them.
//
//	yaml      the key
//	doc       what it means, for the reference and for editors
//	required  the key must be there; the text says what to write
//	default   what it is otherwise; several values of a list parted by commas
//	enum      the values that are allowed, parted by commas
//	min, max  bounds of numbers and durations; of the length of lists and texts

var formOf = map[Kind]func() any{
	KindMesh:             func() any { return new(meshForm) },
	KindIdentityProvider: func() any { return new(providerForm) },
	KindGateway:          func() any { return new(gatewayForm) },
	KindService:          func() any { return new(serviceForm) },
	KindClient:           func() any { return new(clientForm) },
	KindAPIKey:           func() any { return new(apiKeyForm) },
	KindUsers:            func() any { return new(usersForm) },
	KindRoles:            func() any { return new(rolesForm) },
	KindData:             func() any { return new(dataForm) },
	KindTest:             func() any { return new(testForm) },
	KindRego:             func() any { return new(regoForm) },
}

// kinds are those of a mesh, as the reference has them.
var kinds = []Kind{
	KindMesh, KindIdentityProvider, KindGateway, KindService, KindClient, KindAPIKey, KindUsers, KindRoles, KindData, KindRego,
}

type meshForm struct {
	Kind         string           `yaml:"kind" required:"write Mesh" enum:"Mesh" doc:"The mesh as a whole. There is exactly one such document."`
	Name         name             `yaml:"name" required:"write what the mesh is called" doc:"What the mesh is called."`
	TrustDomain  trustDomain      `yaml:"trustDomain" required:"write a domain name of yours, such as shop.example" doc:"SPIFFE trust domain of all workloads, and the audience of Passports."`
	Passport     passportForm     `yaml:"passport" doc:"The internal identity statement that gateways mint."`
	Certificates certificatesForm `yaml:"certificates" doc:"How long certificates of workloads are good."`
	Decisions    decisionsForm    `yaml:"decisions" doc:"What agents write down of the decisions that they make."`
}

type decisionsForm struct {
	Log    string     `yaml:"log" enum:"best-effort,required,off" doc:"best-effort: no decision waits for its record, and what is lost is counted. required: a request gets no answer, but for a 503, before its record is on disk. off: nothing is written. In a Mesh best-effort if not set, in a Gateway as in the Mesh."`
	Redact redactForm `yaml:"redact" doc:"What records tell of people. What is not set is as in the Mesh."`
}

type redactForm struct {
	User   string `yaml:"user" enum:"keep,hash,omit" doc:"The user. hash: equal ones are found, by who has the agents' key. keep if not set."`
	Tenant string `yaml:"tenant" enum:"keep,hash,omit" doc:"The tenant; keep if not set."`
	Client string `yaml:"client" enum:"keep,hash,omit" doc:"The OAuth client; keep if not set."`
	IP     string `yaml:"ip" enum:"keep,network,hash,omit" doc:"The client's address. network: its /24, or /48 of IPv6. network if not set."`
	Path   string `yaml:"path" enum:"keep,route,hash,omit" doc:"The path. route: the route's pattern, such as /orders/{id}. keep if not set."`
}

type certificatesForm struct {
	Lifetime          duration `yaml:"lifetime" default:"24h" min:"10s" max:"2160h" doc:"Of a workload's certificate; it is renewed at about half of it. Connections between workloads live a quarter of it, 1h at most."`
	AuthorityLifetime duration `yaml:"authorityLifetime" default:"720h" min:"1m" max:"87600h" doc:"Of an issuing authority; the next one takes over at about half of it. At least twice lifetime."`
	RootLifetime      duration `yaml:"rootLifetime" default:"87600h" min:"1m" max:"876000h" doc:"Of a root that the control plane makes. At least authorityLifetime."`
}

type passportForm struct {
	Lifetime duration `yaml:"lifetime" default:"60s" min:"10s" max:"5m" doc:"How long a Passport is valid. Calls that take longer end in a denial further on."`
}

type providerForm struct {
	Kind             string             `yaml:"kind" required:"write IdentityProvider" enum:"IdentityProvider" doc:"An OpenID provider whose tokens gateways accept."`
	Name             name               `yaml:"name" required:"write what gateways call it" doc:"What gateways refer to it by."`
	Issuer           string             `yaml:"issuer" required:"write the iss of its tokens, byte for byte" max:"512" doc:"URL, compared byte for byte with the iss of tokens. The keys are found by OpenID Connect Discovery below it."`
	Audiences        []string           `yaml:"audiences" required:"write the aud that tokens for this mesh have" min:"1" max:"32" doc:"A token must name at least one of them in aud; one of Cognito, which has none, in client_id."`
	Claims           claimsForm         `yaml:"claims" doc:"The claims that the identity is read from."`
	Tenants          []string           `yaml:"tenants" min:"1" max:"1000" doc:"Tenants that it may speak for: tokens of others are refused, and those of no tenant. Any, if not set."`
	ClockSkew        duration           `yaml:"clockSkew" default:"30s" min:"0s" max:"5m" doc:"Tolerated on exp, nbf and iat."`
	MaxTokenLifetime duration           `yaml:"maxTokenLifetime" default:"24h" min:"1m" max:"8760h" doc:"Tokens that live longer, from iat to exp, are refused, since a revocation is forgotten when no token can match it any more."`
	Refresh          duration           `yaml:"refresh" default:"30s" min:"10s" max:"1h" doc:"How often the keys are fetched. Tokens by a new key are accepted, and by one that is gone refused, after so long. At most half of keysMaxAge."`
	KeysMaxAge       duration           `yaml:"keysMaxAge" default:"24h" min:"5m" max:"168h" doc:"How long keys are used that could not be fetched again; then its tokens are refused."`
	IDToken          *idTokenForm       `yaml:"idToken" doc:"Its ID tokens (OpenID Connect Core 1.0), for authenticate.idToken."`
	Tokens           string             `yaml:"tokens" default:"jwt" enum:"jwt,opaque" doc:"opaque: access tokens are no JWTs, and the provider is asked about each (RFC 7662)."`
	Introspection    *introspectionForm `yaml:"introspection" doc:"How the provider is asked about access tokens. Required with tokens: opaque, and by routes with introspect."`
	JWKSHosts        []urlHost          `yaml:"jwksHosts" min:"1" max:"16" doc:"Hosts beside the issuer's own where its discovery document may say that the keys are: www.googleapis.com."`
	AllowHTTP        bool               `yaml:"allowHTTP" default:"false" doc:"Lets the issuer be http: whoever is on the way to it can then forge tokens. For tests."`
	AllowPrivate     bool               `yaml:"allowPrivate" default:"false" doc:"Lets the issuer, and what it refers to, have loopback and private addresses: for a provider in your own network. Link-local addresses and metadata services of clouds are never called."`
}

type idTokenForm struct {
	Audiences []string `yaml:"audiences" required:"write the client ids whose ID tokens are accepted" min:"1" max:"32" doc:"Clients whose ID tokens are accepted: aud must name no others, and azp one of them if it is there. None may be among the audiences of access tokens."`
}

type introspectionForm struct {
	Endpoint string     `yaml:"endpoint" max:"512" doc:"URL. If not set, the provider's introspection_endpoint, found by discovery."`
	Client   string     `yaml:"client" required:"write the client id to ask as" max:"256" doc:"Client id that the agents of gateways ask as."`
	Secret   secretName `yaml:"secret" required:"write the name of its secret: staff for staff.secret" doc:"The client's secret: NAME is NAME.secret in the directory that agents are given with --secrets."`
	Cache    duration   `yaml:"cache" default:"30s" min:"0s" max:"10m" doc:"How long an answer is believed at most, and so how long a token that the provider revoked is still taken."`
	Rate     uint32     `yaml:"rate" default:"100" min:"1" max:"10000" doc:"How often each gateway's agent asks at most, per second; requests beyond that are refused with 503."`
}

type claimsForm struct {
	User   claimPath `yaml:"user" default:"sub" doc:"Claim of the user's ID. Of any claim here: a name with a slash before it is a JSON Pointer into nested objects, such as /realm_access/roles. email counts only with email_verified: true."`
	Groups claimPath `yaml:"groups" default:"groups" doc:"Claim of the user's groups, an array or a text with spaces between."`
	Tenant claimPath `yaml:"tenant" doc:"Claim of the tenant. Users have no tenant if it is not set."`
	Client claimPath `yaml:"client" doc:"Claim of the OAuth client. If not set, client_id, else azp, appid or cid; of ID tokens azp, else aud."`
}

type gatewayForm struct {
	Kind         string             `yaml:"kind" required:"write Gateway" enum:"Gateway" doc:"An Envoy at the edge, where external clients come in."`
	Name         name               `yaml:"name" required:"write what callers and gateways lists call it" doc:"What services call it. Gateways and services share one namespace."`
	Profile      Profile            `yaml:"profile" default:"public" enum:"public,semi-public,private" doc:"How exposed it is. Public and semi-public gateways must authenticate."`
	Listen       listenAddress      `yaml:"listen" required:"write an IP address and port, such as 0.0.0.0:8443" doc:"Where it listens."`
	TLS          *gatewayTLSForm    `yaml:"tls" doc:"How it speaks with clients. Required by profiles public and semi-public; a private gateway without it speaks in the clear."`
	Authenticate *authenticateForm  `yaml:"authenticate" doc:"Who may come in, on routes that do not say it themselves. Required by profiles public and semi-public; a private gateway without it lets nobody in."`
	DenyStatus   uint32             `yaml:"denyStatus" max:"403" doc:"403: nobody is told whether to authenticate. If not set, that is 401."`
	MaxStaleness duration           `yaml:"maxStaleness" min:"10s" max:"168h" doc:"Without word of the control plane for so long, all requests are refused, since revocations are not heard of. If not set, they are never for that."`
	Data         []string           `yaml:"data" max:"100" doc:"Data documents that conditions may read, as data.NAME."`
	Decisions    decisionsForm      `yaml:"decisions" doc:"What its agents write down of the decisions that they make, where that is not as in the Mesh."`
	Tenants      []string           `yaml:"tenants" min:"1" max:"1000" doc:"Tenants whose users may come in; all, and users without a tenant, if not set."`
	PeerLimit    peerLimitForm      `yaml:"peerLimit" doc:"Limit per client address, applied before anything is authenticated."`
	Routes       []gatewayRouteForm `yaml:"routes" max:"1000" doc:"What it lets through. The first that matches wins; what matches none is answered with 404."`
}

type gatewayTLSForm struct {
	Mode               string                  `yaml:"mode" default:"on" enum:"on,off" doc:"off: clients are served in the clear, for where TLS ends in front of the gateway."`
	Certificates       []name                  `yaml:"certificates" min:"1" max:"100" doc:"Server certificates, chosen by the host name that the client asks for; the first if none has it. NAME is NAME.crt and NAME.key in the directory that the gateway's agent is given with --certificates. Required with mode on."`
	MinVersion         string                  `yaml:"minVersion" default:"1.2" enum:"1.2,1.3" doc:"Oldest version of TLS that clients may speak. 1.3 is preferred."`
	ClientCertificates *clientCertificatesForm `yaml:"clientCertificates" doc:"Certificates that clients show. Profiles semi-public and private only."`
}

type clientCertificatesForm struct {
	Trust    name            `yaml:"trust" required:"write the name of a trust bundle: partners for partners.ca.crt" doc:"Who signs them: NAME is NAME.ca.crt in the directory of --certificates."`
	Required bool            `yaml:"required" default:"true" doc:"false: clients without a certificate are let in, too. One that is shown must be good in any case."`
	Names    []alternateName `yaml:"names" min:"1" max:"1000" doc:"Subject alternative names, one of which a certificate must have, byte for byte: a URI, DNS name or email address. All if not set."`
}

type authenticateForm struct {
	AccessToken       string               `yaml:"accessToken" doc:"IdentityProvider whose access token must be there (Authorization: Bearer)."`
	IDToken           string               `yaml:"idToken" doc:"IdentityProvider whose ID token must be there (X-Id-Token). With accessToken, both must belong together."`
	APIKey            bool                 `yaml:"apiKey" default:"false" doc:"An API key must be there (X-Api-Key)."`
	Basic             string               `yaml:"basic" doc:"Users document of which one must be logged in (Authorization: Basic)."`
	ClientCertificate *certificateRuleForm `yaml:"clientCertificate" doc:"A client certificate must be there."`
	AnyOf             []credentialsForm    `yaml:"anyOf" min:"1" max:"10" doc:"Alternatives, instead of the credentials above. Which one counts goes by the credentials that are there, and by who issued a token: of several, the first."`
	Anonymous         bool                 `yaml:"anonymous" default:"false" doc:"Lets in requests without any credential, too. They carry no Passport."`
	Introspect        bool                 `yaml:"introspect" default:"false" doc:"The IdentityProvider is asked about each access token, so that one that it revoked is refused. Gateways only."`
	ACR               []word               `yaml:"acr" min:"1" max:"16" doc:"Authentication context classes: the user's login must have had one (acr)."`
	AMR               []word               `yaml:"amr" min:"1" max:"16" doc:"Authentication methods: the user's login must have had all (amr), such as [mfa]."`
	MaxAge            duration             `yaml:"maxAge" min:"1s" max:"8760h" doc:"How long ago the user's login may be (auth_time)."`
	Clients           string               `yaml:"clients" default:"any" enum:"any,registered" doc:"registered: the client must have a Client document that is active and names the service. Gateways only."`
	Tenant            string               `yaml:"tenant" default:"required" enum:"required,optional" doc:"required: who is of no tenant is refused. Where no document speaks of tenants, nobody is."`
}

type credentialsForm struct {
	AccessToken       string               `yaml:"accessToken" doc:"See above."`
	IDToken           string               `yaml:"idToken" doc:"See above."`
	APIKey            bool                 `yaml:"apiKey" default:"false" doc:"See above."`
	Basic             string               `yaml:"basic" doc:"See above."`
	ClientCertificate *certificateRuleForm `yaml:"clientCertificate" doc:"See above."`
}

type certificateRuleForm struct {
	Names    []alternateName `yaml:"names" min:"1" max:"1000" doc:"Subject alternative names, one of which it must have, byte for byte: a URI (SPIFFE ID), DNS name or email address."`
	Subjects []string        `yaml:"subjects" min:"1" max:"1000" doc:"Subjects, one of which it must have, such as CN=till,O=Partner. One of the two keys is required at gateways; services take neither."`
}

type peerLimitForm struct {
	Requests uint32 `yaml:"requests" default:"1000" min:"1" max:"10000000" doc:"Requests allowed in each period."`
	Per      period `yaml:"per" default:"second" min:"50ms" max:"24h" doc:"The period."`
	Burst    uint32 `yaml:"burst" min:"1" max:"10000000" doc:"Requests allowed at once; requests if not set."`
}

type gatewayRouteForm struct {
	Name      name           `yaml:"name" doc:"Unique in the gateway; route-0, route-1, … by its place if not set. Name routes that others may be put before."`
	Match     matchForm      `yaml:"match" doc:"The requests that take this route."`
	To        string         `yaml:"to" required:"write a service's name, or {variable} of match.path" doc:"Service that requests go to. {variable} of match.path: any service that names this gateway in callers of at least one route."`
	Rewrite   Pattern        `yaml:"rewrite" doc:"What the service sees instead of match.path. Both end in /**, which stands for the same rest."`
	Allow     expression     `yaml:"allow" max:"4096" doc:"CEL condition. If not set, a valid credential is enough here; the service decides for itself in any case."`
	Rego      *regoRuleForm  `yaml:"rego" doc:"A policy in Rego that must allow, too."`
	RateLimit *rateLimitForm `yaml:"rateLimit" doc:"Limit of this route at this gateway."`

	Authenticate *authenticateForm     `yaml:"authenticate" doc:"Who may come in on this route. Credentials replace the gateway's; what else is not written is as there."`
	Bind         map[string]expression `yaml:"bind" max:"8" doc:"Facts of the call that its Passports carry: CEL for a string, by name, such as {order: params.id}. Conditions of services read them as passport.bound.order."`
	Body         size                  `yaml:"body" min:"1B" max:"1MiB" doc:"Shows JSON bodies up to this size to the condition, as request.body; larger ones are refused with 413. If not set, none."`
}

type matchForm struct {
	Method string  `yaml:"method" enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" doc:"HTTP method; GET is HEAD, too. Any if not set."`
	Path   Pattern `yaml:"path" required:"write a path such as /orders/{id}, or /** for all" doc:"Path, without query. {id} is any one segment, and params.id in conditions; /** at the end is that path and everything below."`
}

type serviceForm struct {
	Kind      string         `yaml:"kind" required:"write Service" enum:"Service" doc:"A service of the registry that the mesh protects."`
	Name      name           `yaml:"name" required:"write its name in the registry" doc:"Its name in the registry. Gateways and services share one namespace."`
	Tier      Tier           `yaml:"tier" default:"system" enum:"experience,process,system" doc:"Its place in API-led connectivity."`
	MTLS      MTLS           `yaml:"mtls" default:"strict" enum:"strict,permissive,off" doc:"strict: reached at its sidecar only, over mutual TLS. permissive: also in the clear, for migration, by the addresses in plaintext.from and on routes that name plaintext in callers. off: in the clear, at its sidecar if plaintext.from is set, else at its own address without a sidecar."`
	Plaintext *plaintextForm `yaml:"plaintext" doc:"Connections in the clear. Required with mtls: permissive, not allowed with strict."`
	Uses      []string       `yaml:"uses" max:"1000" doc:"Services that it may call. Its sidecar offers no other."`
	Callers   []string       `yaml:"callers" max:"1000" doc:"Services and gateways that may call, for routes that do not say it themselves, and plaintext for connections in the clear. Default: nobody."`
	Gateways  []string       `yaml:"gateways" min:"1" max:"1000" doc:"Gateways whose Passports it takes; all if not set."`

	Authenticate *authenticateForm `yaml:"authenticate" doc:"What Passports must say of how their users came in, on routes that do not say it themselves. Default: any Passport."`
	DenyStatus   uint32            `yaml:"denyStatus" max:"403" doc:"403: nobody is told whether to authenticate. If not set, that is 401."`
	MaxStaleness duration          `yaml:"maxStaleness" min:"10s" max:"168h" doc:"Without word of the control plane for so long, all requests are refused, since revocations are not heard of. If not set, they are never for that."`
	Data         []string          `yaml:"data" max:"100" doc:"Data documents that conditions may read, as data.NAME."`

	Routes []routeForm `yaml:"routes" max:"1000" doc:"Its operations. The first that matches wins; what matches none is answered with 404."`
}

type plaintextForm struct {
	From     []cidr `yaml:"from" required:"write the networks whose connections are taken, such as [10.1.2.0/24]" min:"1" max:"1000" doc:"Networks whose connections in the clear the sidecar takes."`
	Passport bool   `yaml:"passport" default:"false" doc:"Lets Passports go over connections in the clear: whoever listens in on the way can use them while they are valid."`
}

type routeForm struct {
	Name           name                `yaml:"name" doc:"Unique in the service; route-0, route-1, … by its place if not set. Name routes that others may be put before."`
	Match          matchForm           `yaml:"match" doc:"The requests that take this route."`
	Callers        []string            `yaml:"callers" max:"1000" doc:"Services and gateways that may call, and plaintext for connections in the clear (mtls: permissive), whose callers are nobody; the service's callers if not set. A service must have this one in its uses."`
	Allow          expression          `yaml:"allow" required:"write a CEL condition, such as \"'sales' in user.groups\"" max:"4096" doc:"CEL condition that must be true."`
	Rego           *regoRuleForm       `yaml:"rego" doc:"A policy in Rego that must allow, too."`
	Timeout        duration            `yaml:"timeout" default:"15s" min:"1ms" max:"1h" doc:"Bounds the whole call, retries included."`
	Retries        *retriesForm        `yaml:"retries" doc:"When the caller's Envoy tries again. Default: never."`
	CircuitBreaker *circuitBreakerForm `yaml:"circuitBreaker" doc:"What one caller's Envoy may ask of this route at once, and when it leaves an instance alone."`
	RateLimit      *rateLimitForm      `yaml:"rateLimit" doc:"Limit of this route at each instance."`

	Authenticate *authenticateForm `yaml:"authenticate" doc:"What Passports must say on this route. Credentials replace the service's; what else is not written is as there."`
	Body         size              `yaml:"body" min:"1B" max:"1MiB" doc:"Shows JSON bodies up to this size to the condition, as request.body; larger ones are refused with 413. If not set, none."`
}

type retriesForm struct {
	Attempts uint32   `yaml:"attempts" default:"1" min:"1" max:"10" doc:"Attempts after the first."`
	On       []string `yaml:"on" default:"connect-failure,refused-stream" min:"1" enum:"5xx,gateway-error,reset,reset-before-request,connect-failure,envoy-ratelimited,retriable-4xx,refused-stream,http3-post-connect-failure,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable" doc:"Envoy's retry conditions. With the default nothing is ever done twice."`
	PerTry   duration `yaml:"perTry" min:"1ms" max:"1h" doc:"Bounds one attempt; only timeout does if not set."`
}

type circuitBreakerForm struct {
	MaxConnections *uint32  `yaml:"maxConnections" min:"1" max:"10000000" doc:"Connections at once. Envoy's default is 1024."`
	MaxPending     *uint32  `yaml:"maxPending" min:"1" max:"10000000" doc:"Requests waiting for a connection at once. Envoy's default is 1024."`
	MaxRequests    *uint32  `yaml:"maxRequests" min:"1" max:"10000000" doc:"Requests at once. Envoy's default is 1024."`
	MaxRetries     *uint32  `yaml:"maxRetries" max:"10000000" doc:"Retries at once. Envoy's default is 3."`
	Consecutive5xx *uint32  `yaml:"consecutive5xx" min:"1" max:"10000" doc:"So many failures in a row eject an instance; none if not set."`
	EjectFor       duration `yaml:"ejectFor" default:"30s" min:"10ms" max:"24h" doc:"The first ejection's time; it grows with each."`
	MaxEjectFor    duration `yaml:"maxEjectFor" min:"10ms" max:"24h" doc:"The longest ejection; 5m, or ejectFor if that is longer, if not set."`
}

type rateLimitForm struct {
	Requests uint32         `yaml:"requests" required:"write how many requests are allowed" min:"1" max:"10000000" doc:"Requests allowed in each period."`
	Per      period         `yaml:"per" default:"second" min:"50ms" max:"24h" doc:"The period."`
	Burst    uint32         `yaml:"burst" min:"1" max:"10000000" doc:"Requests allowed at once; requests if not set."`
	By       []RateLimitKey `yaml:"by" enum:"tenant,user,client,ip" doc:"What each has a limit of its own for; one for the route if not set."`
}

type clientForm struct {
	Kind   string     `yaml:"kind" required:"write Client" enum:"Client" doc:"An application that calls from outside, for authenticate.clients and for API keys."`
	Name   clientID   `yaml:"name" required:"write its client id" doc:"Its id: the client_id of its tokens, byte for byte."`
	Owner  identifier `yaml:"owner" required:"write who answers for it" doc:"Who answers for it."`
	APIs   []string   `yaml:"apis" max:"1000" doc:"Services that it may call through gateways that take registered clients alone. Default: none."`
	Active bool       `yaml:"active" default:"true" doc:"false: it may not come, and its API keys are refused."`
	Plan   string     `yaml:"plan" max:"64" doc:"Its plan, for rate limits and access logs (dynamic metadata) and as client.plan in conditions."`
	Tenant identifier `yaml:"tenant" doc:"Tenant that it belongs to: users of others are refused with it. If not set, it may come for all."`
}

type apiKeyForm struct {
	Kind    string       `yaml:"kind" required:"write APIKey" enum:"APIKey" doc:"An API key, as chancery apikey create writes it. The key itself is not in it."`
	Name    keyID        `yaml:"name" required:"write the key's id" doc:"Its id: the part of the key that it is found by."`
	Client  string       `yaml:"client" required:"write the name of a Client" doc:"Client whose key it is."`
	Owner   identifier   `yaml:"owner" required:"write who it speaks for" doc:"Who it speaks for: the user of its requests."`
	Scopes  []scopeToken `yaml:"scopes" max:"100" doc:"Scopes of its requests, user.scopes in conditions."`
	Tenant  identifier   `yaml:"tenant" doc:"Tenant of its requests; the client's if not set."`
	Hash    keyHash      `yaml:"hash" required:"make keys with chancery apikey create" doc:"Hash of the key: sha256: and its SHA-256 in hex."`
	Expires timestamp    `yaml:"expires" doc:"When it ends, such as 2027-01-31T00:00:00Z; never if not set."`
	Revoked bool         `yaml:"revoked" default:"false" doc:"true: it is refused."`
}

type usersForm struct {
	Kind  string     `yaml:"kind" required:"write Users" enum:"Users" doc:"People and programs that log in with Basic authentication."`
	Name  name       `yaml:"name" required:"write what gateways call them" doc:"What gateways refer to them by."`
	Users []userForm `yaml:"users" required:"write a list of users" min:"1" max:"10000" doc:"The users."`
}

type userForm struct {
	Name     userName     `yaml:"name" required:"write the user's name" doc:"Name, compared byte for byte. It has no colon."`
	Password passwordHash `yaml:"password" required:"write a hash, made with chancery password" doc:"Hash of the password: argon2id or bcrypt."`
	Groups   []identifier `yaml:"groups" max:"1000" doc:"Groups, user.groups in conditions."`
	Tenant   identifier   `yaml:"tenant" doc:"Tenant."`
	Disabled bool         `yaml:"disabled" default:"false" doc:"true: the user is refused."`
}

type rolesForm struct {
	Kind  string     `yaml:"kind" required:"write Roles" enum:"Roles" doc:"What groups of users may do: user.roles and user.permissions in conditions. Roles that a token claims count for nothing."`
	Name  name       `yaml:"name" required:"write a name for the table" doc:"What the table is called. The roles of all tables are one namespace."`
	Roles []roleForm `yaml:"roles" required:"write a list of roles" min:"1" max:"1000" doc:"The roles."`
}

type roleForm struct {
	Name        name     `yaml:"name" required:"write what the role is called" doc:"What it is called."`
	Groups      []string `yaml:"groups" max:"1000" doc:"Groups whose users have it."`
	Includes    []string `yaml:"includes" max:"100" doc:"Roles whose permissions it has, too."`
	Permissions []string `yaml:"permissions" max:"1000" doc:"Permissions, such as orders.create."`
}

type dataForm struct {
	Kind   string     `yaml:"kind" required:"write Data" enum:"Data" doc:"A set of values for the conditions of gateways and services that name it in data."`
	Name   name       `yaml:"name" required:"write what conditions call it" doc:"data.NAME in conditions; with a - in it, data['NAME']."`
	Values dataValues `yaml:"values" required:"write a mapping of keys to values" doc:"Any mapping: texts, numbers, true and false, lists and mappings of them."`
}

type regoForm struct {
	Kind    string       `yaml:"kind" required:"write Rego" enum:"Rego" doc:"A policy in Rego, for routes that name it in rego. What routes know is in input, as the OPA-Envoy plugin has it, and in input.identity: user, client, caller, tenant, params and passport, as in conditions, and ip, host and path, which are those of request there."`
	Name    name         `yaml:"name" required:"write what routes call it" doc:"What routes refer to it by."`
	Modules []moduleFile `yaml:"modules" required:"write the files of its modules, such as [orders.rego]" min:"1" max:"100" doc:"Files of its modules, in the directory of the documents."`
	Texts   []moduleText `yaml:"texts" max:"100" doc:"The modules themselves, in the order of modules, where they are not in files."`
	V0      bool         `yaml:"v0" default:"false" doc:"true: the modules are of Rego v0, from before OPA 1.0, unless they import rego.v1."`
}

type regoRuleForm struct {
	Module string `yaml:"module" required:"write the name of a Rego document" doc:"Rego document."`
	Query  string `yaml:"query" required:"write the name of a rule, such as data.shop.allow" max:"256" doc:"Name of the rule. It must be true; false, undefined and anything else refuse."`
}
