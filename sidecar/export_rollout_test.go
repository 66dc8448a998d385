package sidecar

import "context"

// Rollout is a rollout that nobody runs.
type Rollout struct{ r *rollout }

func NewRollout() Rollout {
	return Rollout{&rollout{next: make(chan *revision, 1), again: make(chan struct{}, 1)}}
}

// Regenerate and Submit are regenerate and submit.
func (r Rollout) Regenerate(generations map[string]string) { r.r.regenerate(generations) }

func (r Rollout) Submit(id string) { r.r.submit(&revision{id: id}) }

// Next returns the revision that is to be rolled out next; "again" is the present
// one, made local once more, and empty none before ctx ends.
func (r Rollout) Next(ctx context.Context) string {
	switch next := r.r.wait(ctx); next {
	case nil:
		return ""
	case sameAgain:
		return "again"
	default:
		return next.id
	}
}
