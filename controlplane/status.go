package controlplane

import (
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/provider"
	"github.com/chancery-mesh/chancery/mesh"
)

// Status is what the control plane tells of itself.
type Status struct {
	// Version of the program.
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Ready is empty, or says what is not ready.
	NotReady   string             `json:"notReady,omitempty"`
	Documents  DocumentsStatus    `json:"documents"`
	Quarantine []QuarantineStatus `json:"quarantine"`
	Views      []ViewStatus       `json:"views"`
	// Authority is nil until there are valid documents.
	Authority *AuthorityStatus  `json:"authority,omitempty"`
	Services  []ServiceStatus   `json:"services"`
	Providers []provider.Status `json:"providers"`
}

// DocumentsStatus says how the documents are.
type DocumentsStatus struct {
	Dir string `json:"dir"`
	// Valid says that what is in the directory is what is served, quarantine
	// apart.
	Valid bool `json:"valid"`
	// Faults of what is in the directory, one each, with file and line.
	Faults []string `json:"faults,omitempty"`
	// Served counts the documents that are served, and Since is when they
	// came.
	Served int       `json:"served"`
	Since  time.Time `json:"since,omitzero"`
	// Restored says that they are the last good ones of an earlier process,
	// because what is in the directory has never been valid in this one's
	// life.
	Restored bool `json:"restored,omitempty"`
}

// QuarantineStatus is one document that a proxy of a view rejected.
type QuarantineStatus struct {
	Document string `json:"document"`
	// View is the one that does without the document, "gateway/<name>",
	// "service/<name>" or "all views".
	View  string    `json:"view"`
	Since time.Time `json:"since"`
	// Reason is what the proxy said.
	Reason string `json:"reason"`
	// Proxy, of which TypeURL.
	Proxy   string `json:"proxy"`
	TypeURL string `json:"typeURL"`
	// Previous says that an earlier version of the document is served;
	// otherwise none is.
	Previous bool `json:"previous"`
}

// ViewStatus is what all proxies of one gateway or service see.
type ViewStatus struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	// Proven is the last revision that a proxy acknowledged whole.
	Proven  string `json:"proven,omitempty"`
	Streams int    `json:"streams"`
}

// ServiceStatus is what the registry says of a service that is used.
type ServiceStatus struct {
	Name      string `json:"name"`
	Instances int    `json:"instances"`
	// Held says that the registry gave less, and was not believed.
	Held   bool   `json:"held,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// InstanceStatus is where one instance of a service runs, as the registry says.
type InstanceStatus struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	// Address is where the service itself listens, and Mesh where its sidecar
	// does, empty if it has none.
	Address string `json:"address"`
	Mesh    string `json:"mesh,omitempty"`
	// MTLS says that its sidecar demands mutual TLS of all but the networks
	// that its document lists, and that nobody shall reach it past that.
	MTLS bool `json:"mtls"`
}

// State is how a proxy stands with the resources of one type.
type State string

// The states of types.
const (
	// StateACKed is in force.
	StateACKed State = "ACKED"
	// StatePending was sent and not yet answered.
	StatePending State = "PENDING"
	// StateStale was acknowledged once; there is newer.
	StateStale State = "STALE"
	// StateNACKed was rejected; what was there before is in force, until the
	// documents that caused it change.
	StateNACKed State = "NACKED"
)

// ProxyStatus is how one Envoy stands.
type ProxyStatus struct {
	// Name is "gateway/<name>" or "service/<name>".
	Name string `json:"name"`
	// Instance is what the agent calls itself.
	Instance string `json:"instance"`
	// Connected says that the agent is; Since is when that began or ended.
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	// EnvoyConnected says that Envoy is connected to the agent.
	EnvoyConnected bool   `json:"envoyConnected"`
	EnvoyVersion   string `json:"envoyVersion,omitempty"`
	AgentVersion   string `json:"agentVersion,omitempty"`
	// Latest revision there is, the one that the agent holds, and the one
	// that Envoy acknowledged whole.
	Latest       string       `json:"latest"`
	Held         string       `json:"held,omitempty"`
	Acknowledged string       `json:"acknowledged,omitempty"`
	Types        []TypeStatus `json:"types"`
	// Lineage of the certificates that the agent connects with.
	Lineage string `json:"lineage"`
	// Trust is the sequence of the trust that agent and Envoy have taken.
	Trust uint64 `json:"trust"`
	// Revocations is the sequence of the revocations of credentials that the
	// agent decides by.
	Revocations uint64 `json:"revocations"`
	// Certificate is what agent and Envoy use; nil until the agent has said.
	Certificate *CertificateStatus `json:"certificate,omitempty"`
	// ClockAhead is how many seconds the agent's clock is ahead of the control
	// plane's.
	ClockAhead float64 `json:"clockAheadSeconds"`
	// Problems is what is wrong with identity and trust, for people.
	Problems []string `json:"problems,omitempty"`
}

// CertificateStatus is how the certificate of a proxy stands.
type CertificateStatus struct {
	Serial string `json:"serial"`
	// Authority that signed it, and how that stands: "active", "tainted" and so
	// on, empty when it is not trusted.
	Authority      string    `json:"authority"`
	AuthorityState string    `json:"authorityState"`
	Expires        time.Time `json:"expires,omitzero"`
	// Renews is when the agent is going to renew it.
	Renews time.Time `json:"renews,omitzero"`
	// Revoked is when it was.
	Revoked time.Time `json:"revoked,omitzero"`
}

// TypeStatus is how a proxy stands with one type.
type TypeStatus struct {
	TypeURL string `json:"typeURL"`
	State   State  `json:"state"`
	// Error and Rejected are of StateNACKed alone.
	Error    string   `json:"error,omitempty"`
	Rejected []string `json:"rejected,omitempty"`
	// Documents are those in quarantine for it.
	Documents []string `json:"documents,omitempty"`
}

// reject notes what the proxy rejected that is in quarantine for it.
func (p *ProxyStatus) reject(q quarantine) {
	for _, documents := range q {
		for id, d := range documents {
			if d.Rejection.ID.String() == p.Name && d.Rejection.Instance == p.Instance {
				p.rejectOne(id, d.Rejection)
			}
		}
	}
}

func (p *ProxyStatus) rejectOne(document mesh.DocumentID, r rejection) {
	i := slices.IndexFunc(p.Types, func(t TypeStatus) bool { return t.TypeURL == r.TypeURL })
	if i < 0 {
		i = len(p.Types)
		p.Types = append(p.Types, TypeStatus{TypeURL: r.TypeURL})
	}
	t := &p.Types[i]
	t.State, t.Error, t.Rejected = StateNACKed, r.Text, r.Names
	t.Documents = append(t.Documents, document.String())
	slices.Sort(t.Documents)
}
