package sidecar

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// peers finds, in what the mesh trusts, whose open connections must be used no
// more: those of services of which a certificate was revoked and, when an
// authority is not trusted any more, those of all. So do those of all that were
// made with a certificate of this workload that was revoked, once there is
// another: peers refuse what comes over them. A revocation that is dropped
// because the certificate has ended changes nothing.
type peers struct {
	// revoked are the fingerprints that were seen last, authorities the
	// authorities.
	revoked     map[string]bool
	authorities []string
	// everybody and services are the generations.
	everybody string
	services  map[string]string
	// disowned says that the workload's own certificate was revoked.
	disowned bool
}

// take returns the generations of connections under t and with the workload's own
// certificate, nil for none, and whether any of them is new. Agents that start
// find the same for the same Trust.
func (p *peers) take(t *identity.Trust, own *identity.SVID) (generations map[string]string, changed bool) {
	everybody, services := p.everybody, maps.Clone(p.services)
	p.note(t)
	if own != nil {
		p.noteOwn(t, own)
	}
	generations = map[string]string{envoy.AnyService: p.everybody}
	for service, generation := range p.services {
		generations[service] = p.everybody + generation
	}
	return generations, everybody != p.everybody || !maps.Equal(services, p.services)
}

func (p *peers) note(t *identity.Trust) {
	authorities := authorityIDs(t.Message())
	if slices.ContainsFunc(p.authorities, func(id string) bool { return !t.HasAuthority(id) }) {
		p.everybody = digest(authorities)
	}
	p.authorities = authorities

	all := map[string]bool{}
	fresh := map[string]bool{}
	byService := map[string][]string{}
	for _, r := range t.Message().GetRevoked() {
		fingerprint := hex.EncodeToString(r.GetFingerprint())
		all[fingerprint] = true
		id, err := identity.ParseSPIFFE(t.TrustDomain(), r.GetSpiffeId())
		if err != nil || id.Role != identity.RoleService {
			continue // nobody's upstream
		}
		byService[id.Name] = append(byService[id.Name], fingerprint)
		fresh[id.Name] = fresh[id.Name] || !p.revoked[fingerprint]
	}
	p.revoked = all
	for service, fingerprints := range byService {
		if !fresh[service] {
			continue
		}
		if p.services == nil {
			p.services = map[string]string{}
		}
		slices.Sort(fingerprints)
		p.services[service] = digest(fingerprints)
	}
}

func (p *peers) noteOwn(t *identity.Trust, own *identity.SVID) {
	revoked := t.IsRevoked(own.Fingerprint()) || !t.HasAuthority(own.Authority())
	if p.disowned && !revoked {
		p.everybody = digest([]string{p.everybody, own.Serial()})
	}
	p.disowned = revoked
}

func authorityIDs(m *chancerypb.Trust) []string {
	var ids []string
	for _, a := range m.GetAuthorities() {
		ids = append(ids, a.GetId())
	}
	slices.Sort(ids)
	return ids
}

func digest(names []string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, " ")))
	return hex.EncodeToString(sum[:8])
}
