package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Value is something that a rule read, for people.
type Value struct {
	// Path as the rule has it: "user.groups".
	Path string
	// Text is the value, cut if it is long; "(missing)" if there is none, and
	// "(not kept)" for what may hold secrets.
	Text string
}

const (
	textMissing = "(missing)"
	textNotKept = "(not kept)"
	// maxText bounds the text of a value, in bytes, and maxValues the values.
	maxText   = 256
	maxValues = 16
)

// variables are those whose values are told: data is of the documents, and may
// be large.
var variables = []string{"user", "client", "caller", "tenant", "request", "params", "passport", "now"}

// Values returns what the rule reads of in.
func (p *Program) Values(in *Input) []Value {
	var values []Value
	for _, r := range p.readings {
		name := strings.Join(r.path, ".")
		known := func(v Value) bool { return v.Path == name }
		if len(values) < maxValues && slices.Contains(variables, r.path[0]) && !slices.ContainsFunc(values, known) {
			values = append(values, Value{name, valueText(in, r.path)})
		}
	}
	return values
}

// secrets are parts of requests that may hold secrets.
var secrets = []string{"headers", "query", "target", "body"}

func valueText(in *Input, path []string) string {
	if path[0] == "request" && (len(path) == 1 || slices.Contains(secrets, path[1])) {
		return textNotKept
	}
	value, ok := in.ResolveName(path[0])
	for _, name := range path[1:] {
		if !ok {
			break
		}
		value, ok = member(value, name)
	}
	if !ok {
		return textMissing
	}
	text := fmt.Sprintf("%q", value)
	if t, isTime := value.(fmt.Stringer); isTime {
		text = t.String()
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// member returns a field of one of our types, or of a map.
func member(value any, name string) (any, bool) {
	if m, ok := value.(map[string]string); ok {
		v, ok := m[name]
		return v, ok
	}
	var object string
	switch value.(type) {
	case *User:
		object = userType.TypeName()
	case *Client:
		object = clientType.TypeName()
	case *Caller:
		object = callerType.TypeName()
	case *Request:
		object = requestType.TypeName()
	case *Passport:
		object = passportType.TypeName()
	}
	f := fields[object][name]
	if f == nil {
		return nil, false
	}
	v, err := f.GetFrom(value)
	return v, err == nil
}
