package sidecar

import "time"

// SetProbation changes how long an Envoy must live for a promotion. To be
// called before Run.
func (a *Agent) SetProbation(d time.Duration) { a.rollout.probation = d }
