package mesh

type testForm struct {
	Kind    string                `yaml:"kind" required:"write Test" enum:"Test" doc:"Requests, with what shall be decided about them, for chancery test. In a file whose name ends in .test.yaml, beside the documents of the mesh."`
	Name    name                  `yaml:"name" required:"write what is tested" doc:"What is tested."`
	Gateway string                `yaml:"gateway" doc:"Gateway that decides."`
	Service string                `yaml:"service" doc:"Service whose sidecars decide. Either this or gateway is required."`
	People  map[string]personForm `yaml:"people" max:"1000" doc:"Who requests are made for, by a name for cases."`
	Cases   []caseForm            `yaml:"cases" required:"write a list of requests" min:"1" max:"10000" doc:"The requests."`
}

type personForm struct {
	Provider string     `yaml:"provider" doc:"IdentityProvider that issues their tokens; the only one if not set."`
	Basic    string     `yaml:"basic" doc:"Users document that knows their password, for Passports; the only one if not set."`
	User     string     `yaml:"user" max:"256" doc:"User; the person's name here if not set."`
	Tenant   string     `yaml:"tenant" max:"256" doc:"Tenant; none if not set."`
	Client   string     `yaml:"client" max:"256" doc:"OAuth client that the tokens are for; the first of the provider's idToken.audiences if not set."`
	Groups   []string   `yaml:"groups" max:"1000" doc:"Groups."`
	Scopes   []string   `yaml:"scopes" max:"100" doc:"Scopes."`
	ACR      string     `yaml:"acr" max:"256" doc:"Authentication context class of the login."`
	AMR      []string   `yaml:"amr" max:"16" doc:"Authentication methods of the login."`
	LoggedIn duration   `yaml:"loggedIn" default:"1m" min:"0s" max:"8760h" doc:"How long ago the login was."`
	Claims   dataValues `yaml:"claims" doc:"Further claims of their tokens, or others than what is above makes, such as {aud: other}."`
}

type caseForm struct {
	Name    string          `yaml:"name" required:"write what the case shows" max:"256" doc:"What the case shows."`
	Request testRequestForm `yaml:"request" doc:"What is asked."`
	With    withForm        `yaml:"with" doc:"Credentials that come with it; none if not set. Keys and passwords are made up."`
	Caller  string          `yaml:"caller" doc:"Gateway or service that calls, at a service. If not set, the connection is in the clear."`
	At      timestamp       `yaml:"at" doc:"When it is made, such as 2026-11-03T22:00:00Z; now if not set."`
	Expect  string          `yaml:"expect" required:"write allow or deny" enum:"allow,deny" doc:"What shall be decided."`
	Status  uint32          `yaml:"status" min:"400" max:"599" doc:"HTTP status of the denial; any if not set."`
	Reason  string          `yaml:"reason" doc:"Reason, as in the log; any if not set."`
	Route   string          `yaml:"route" doc:"Name of the route that is taken; any if not set."`
}

type testRequestForm struct {
	Method  string     `yaml:"method" default:"GET" enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" doc:"HTTP method."`
	Path    string     `yaml:"path" required:"write a path, such as /orders/7" max:"4096" doc:"Path, and the query if there is one, as the client sends it."`
	Host    string     `yaml:"host" default:"test.example" max:"256" doc:"Host."`
	IP      string     `yaml:"ip" default:"192.0.2.1" doc:"Address that it comes from."`
	Headers []string   `yaml:"headers" max:"100" doc:"Headers, such as [\"x-tier: gold\"]."`
	Body    dataValues `yaml:"body" doc:"JSON body, as a mapping."`
}

type withForm struct {
	AccessToken       string              `yaml:"accessToken" doc:"Access token of one of people."`
	IDToken           string              `yaml:"idToken" doc:"ID token of one of people."`
	APIKey            string              `yaml:"apiKey" doc:"API key: the name of an APIKey document."`
	Basic             string              `yaml:"basic" doc:"Basic authentication: the name of a user, whose password is right."`
	ClientCertificate *testCertificate    `yaml:"clientCertificate" doc:"Certificate of the client."`
	Passport          string              `yaml:"passport" doc:"Passport of one of people, at services: of the gateway that calls, or else of the first whose Passports are taken."`
	Bound             map[string]caseText `yaml:"bound" max:"8" doc:"Facts of the call that the Passport carries, by name."`
	Shown             []string            `yaml:"shown" default:"access_token" min:"1" enum:"access_token,id_token,api_key,basic,client_certificate" doc:"Credentials that the Passport was made for. Who vouches for its user goes by the first of tokens, basic, api_key and client_certificate that is there."`
}

// caseText is any text.
type caseText string

type testCertificate struct {
	Names   []alternateName `yaml:"names" max:"100" doc:"Subject alternative names."`
	Subject string          `yaml:"subject" max:"256" doc:"Subject, such as CN=till,O=Partner; without an equals sign, its common name."`
}
