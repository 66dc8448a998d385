// Package doctor looks for what undermines a mesh that otherwise seems well:
// services that can be reached past their sidecars, files that others can read,
// clocks that are apart, certificates that are not renewed, a Consul that
// cannot be reached or vouches for nobody.
//
//	findings := doctor.Files("/var/lib/chancery")
//
// It only looks. It knows nothing of what is running but what it is told and
// what it can try from where it runs: a service that is reachable from elsewhere
// and not from here is not found.
package doctor

import "fmt"

// Severity says how bad a finding is.
type Severity string

// The severities of findings.
const (
	// Problem undermines the mesh.
	Problem Severity = "problem"
	// Note may be as it should.
	Note Severity = "note"
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	// Where it was found: a file, an instance, a proxy.
	Where string `json:"where"`
	What  string `json:"what"`
	// Mend says how to mend it.
	Mend string `json:"mend"`
}

func problem(where, mend, what string, args ...any) Finding {
	return Finding{Problem, where, fmt.Sprintf(what, args...), mend}
}

func note(where, mend, what string, args ...any) Finding {
	return Finding{Note, where, fmt.Sprintf(what, args...), mend}
}
