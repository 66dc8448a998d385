package sidecar

import (
	"maps"
	"slices"
	"sync"
)

// problems are what is wrong beside this agent, in words for people: one text
// for each subject. It is safe for concurrent use.
type problems struct {
	// changed is called after each change.
	changed func()

	mu    sync.Mutex
	texts map[string]string
}

// set says what is wrong with a subject; an empty text that nothing is.
func (p *problems) set(subject, text string) {
	if p.enter(subject, text) {
		p.changed()
	}
}

func (p *problems) enter(subject, text string) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.texts[subject] != text
	if text == "" {
		delete(p.texts, subject)
		return changed
	}
	if p.texts == nil {
		p.texts = map[string]string{}
	}
	p.texts[subject] = text
	return changed
}

// list returns all, as "subject: text", in order.
func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, subject := range slices.Sorted(maps.Keys(p.texts)) {
		list = append(list, subject+": "+p.texts[subject])
	}
	return list
}
