// Package chancerypb has the messages between the control plane, agents and
// decision points.
package chancerypb

import "google.golang.org/protobuf/proto"

// WithoutPositions returns p without what only people read: two policies that
// are equal but for that decide alike.
func (p *Policy) WithoutPositions() *Policy {
	p = proto.CloneOf(p)
	for _, r := range p.GetRoutes() {
		r.Position = ""
	}
	return p
}
