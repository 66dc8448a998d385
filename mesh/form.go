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
}

type meshForm struct {
	Kind         string           `yaml:"kind" required:"write Mesh" enum:"Mesh" doc:"The mesh as a whole. There is exactly one such document."`
	Name         name             `yaml:"name" required:"write what the mesh is called" doc:"What the mesh is called."`
	TrustDomain  trustDomain      `yaml:"trustDomain" required:"write a domain name of yours, such as shop.example" doc:"SPIFFE trust domain of all workloads, and the audience of Passports."`
	Passport     passportForm     `yaml:"passport" doc:"The internal identity statement that gateways mint."`
	Certificates certificatesForm `yaml:"certificates" doc:"How long certificates of workloads are good."`
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
	Kind       string     `yaml:"kind" required:"write IdentityProvider" enum:"IdentityProvider" doc:"An OpenID provider whose tokens gateways accept."`
	Name       name       `yaml:"name" required:"write what gateways call it" doc:"What gateways refer to it by."`
	Issuer     string     `yaml:"issuer" required:"write the iss of its tokens, byte for byte" max:"512" doc:"URL, compared byte for byte with the iss of tokens. The keys are found by OpenID Connect Discovery below it."`
	Audiences  []string   `yaml:"audiences" required:"write the aud that tokens for this mesh have" min:"1" max:"32" doc:"A token must name at least one of them in aud."`
	Claims     claimsForm `yaml:"claims" doc:"The claims that the identity is read from."`
	ClockSkew  duration   `yaml:"clockSkew" default:"30s" min:"0s" max:"5m" doc:"Tolerated on exp, nbf and iat."`
	KeysMaxAge duration   `yaml:"keysMaxAge" default:"24h" min:"5m" max:"168h" doc:"How long keys are used that could not be fetched again; then its tokens are refused."`
	AllowHTTP  bool       `yaml:"allowHTTP" default:"false" doc:"Lets the issuer be http: whoever is on the way to it can then forge tokens. For tests."`
}

type claimsForm struct {
	User   string `yaml:"user" default:"sub" max:"128" doc:"Claim of the user's ID."`
	Groups string `yaml:"groups" default:"groups" max:"128" doc:"Claim of the user's groups."`
	Tenant string `yaml:"tenant" max:"128" doc:"Claim of the tenant. Users have no tenant if it is not set."`
	Client string `yaml:"client" max:"128" doc:"Claim of the OAuth client. If not set, client_id, else azp."`
}

type gatewayForm struct {
	Kind         string             `yaml:"kind" required:"write Gateway" enum:"Gateway" doc:"An Envoy at the edge, where external clients come in."`
	Name         name               `yaml:"name" required:"write what callers and gateways lists call it" doc:"What services call it. Gateways and services share one namespace."`
	Profile      Profile            `yaml:"profile" default:"public" enum:"public,semi-public,private" doc:"How exposed it is. Public and semi-public gateways must authenticate."`
	Listen       listenAddress      `yaml:"listen" required:"write an IP address and port, such as 0.0.0.0:8443" doc:"Where it listens."`
	TLS          *gatewayTLSForm    `yaml:"tls" doc:"How it speaks with clients. Required by profiles public and semi-public; a private gateway without it speaks in the clear."`
	Authenticate authenticateForm   `yaml:"authenticate" doc:"The credentials that every request must carry."`
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
	AccessToken string `yaml:"accessToken" doc:"IdentityProvider whose access tokens (Authorization: Bearer) are accepted. Required by profiles public and semi-public; a private gateway without it lets nobody in yet."`
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
	RateLimit *rateLimitForm `yaml:"rateLimit" doc:"Limit of this route at this gateway."`
}

type matchForm struct {
	Method string  `yaml:"method" enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" doc:"HTTP method; any if not set."`
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
	Routes    []routeForm    `yaml:"routes" max:"1000" doc:"Its operations. The first that matches wins; what matches none is answered with 404."`
}

type plaintextForm struct {
	From     []cidr `yaml:"from" required:"write the networks whose connections are taken, such as [10.1.2.0/24]" min:"1" max:"1000" doc:"Networks whose connections in the clear the sidecar takes."`
	Passport bool   `yaml:"passport" default:"false" doc:"Lets Passports go over connections in the clear: whoever listens in on the way can use them while they are valid."`
}

type routeForm struct {
	Name           name                `yaml:"name" doc:"Unique in the service; route-0, route-1, … by its place if not set. Name routes that others may be put before."`
	Match          matchForm           `yaml:"match" doc:"The requests that take this route."`
	Callers        []string            `yaml:"callers" max:"1000" doc:"Services and gateways that may call, and plaintext for connections in the clear (mtls: permissive); the service's callers if not set. A service must have this one in its uses."`
	Allow          expression          `yaml:"allow" required:"write a CEL condition, such as \"'sales' in user.groups\"" max:"4096" doc:"CEL condition that must be true."`
	Timeout        duration            `yaml:"timeout" default:"15s" min:"1ms" max:"1h" doc:"Bounds the whole call, retries included."`
	Retries        *retriesForm        `yaml:"retries" doc:"When the caller's Envoy tries again. Default: never."`
	CircuitBreaker *circuitBreakerForm `yaml:"circuitBreaker" doc:"What one caller's Envoy may ask of this route at once, and when it leaves an instance alone."`
	RateLimit      *rateLimitForm      `yaml:"rateLimit" doc:"Limit of this route at each instance."`
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
