package sidecar

import (
	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
)

// decisionKey is the file of the key that the decision log hashes with. Agents
// that shall have the same hashes are given the same file.
const decisionKey = "decisions.key"

// record keeps a decision, see [extauthz.Config].
func (a *Agent) record(r *extauthz.Record) error { return a.keeper.Record(r) }

// keepDecisions gets ready for decisions. They are written until finish is
// called, which waits for the last.
func (a *Agent) keepDecisions() (finish func(), err error) {
	key, err := decisions.ReadKey(a.config.path(decisionKey))
	if err != nil {
		return nil, err
	}
	a.keeper = decisions.New(decisions.Config{Log: a.decisionLog, Ring: audit.NewRing(0, 0), Key: key})
	return a.decisionLog.Start(), nil
}

// newDecisionLog returns nil where there is no sink.
func (a *Agent) newDecisionLog() (*audit.DecisionLog, error) {
	if a.config.DecisionLog == nil {
		return nil, nil
	}
	return audit.NewDecisionLog(audit.DecisionLogConfig{
		Sink: a.config.DecisionLog, Logger: a.config.Logger, Registerer: a.config.Registerer,
		Agent: a.config.Identity.String(), Instance: a.config.Instance,
		Failing: func(err error) {
			text := ""
			if err != nil {
				text = "decisions cannot be recorded: " + err.Error()
			}
			a.problems.set("decision log", text)
		},
	})
}
