package mesh

import "cmp"

// Decisions say what agents write down of the decisions that they make.
type Decisions struct {
	Log    DecisionLog
	Redact Redaction
}

// DecisionLog is how sure it is that a decision is recorded.
type DecisionLog string

// The ways to record decisions.
const (
	// DecisionLogBestEffort keeps no decision waiting.
	DecisionLogBestEffort DecisionLog = "best-effort"
	// DecisionLogRequired answers nothing that is not recorded.
	DecisionLogRequired DecisionLog = "required"
	// DecisionLogOff records nothing.
	DecisionLogOff DecisionLog = "off"
)

// Redaction says what records tell of people, in the words of package audit:
// keep, hash, omit, network, route.
type Redaction struct {
	User, Tenant, Client, IP, Path string
}

var standardDecisions = Decisions{
	Log:    DecisionLogBestEffort,
	Redact: Redaction{User: "keep", Tenant: "keep", Client: "keep", IP: "network", Path: "keep"},
}

// over returns what form says, and what it does not say as in base.
func (form decisionsForm) over(base Decisions) Decisions {
	return Decisions{Log: cmp.Or(DecisionLog(form.Log), base.Log), Redact: Redaction{
		User:   cmp.Or(form.Redact.User, base.Redact.User),
		Tenant: cmp.Or(form.Redact.Tenant, base.Redact.Tenant),
		Client: cmp.Or(form.Redact.Client, base.Redact.Client),
		IP:     cmp.Or(form.Redact.IP, base.Redact.IP),
		Path:   cmp.Or(form.Redact.Path, base.Redact.Path),
	}}
}

// decisions returns what a gateway's form says, over what the Mesh document
// says.
func (s scope) decisions(form decisionsForm) Decisions {
	base := standardDecisions
	if all := s.names[KindMesh]; len(all) > 0 {
		document := s.documents.Get(DocumentID{KindMesh, all[0]})
		base = document.form.(*meshForm).Decisions.over(base)
	}
	return form.over(base)
}
