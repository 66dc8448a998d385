package audit

// Mode is how sure it is that a decision is recorded.
type Mode uint8

// The modes.
const (
	// BestEffort records with [DecisionLog.Record].
	BestEffort Mode = iota
	// Required records with [DecisionLog.RecordDurably].
	Required
	// Off records nothing.
	Off
)
