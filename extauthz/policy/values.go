package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Value is something that a rule read, for people.
type Value struct {
	// Path as the rule has it: "user.groups".
	Path string
	// Text is the value, cut if it is long; or [TextMissing], or [TextNotKept].
	Text string
}

// Texts in place of values.
const (
	// TextMissing is for what is not there, TextNotKept for what may hold secrets.
	TextMissing = "(missing)"
	TextNotKept = "(not kept)"
)

const (
	// maxText bounds the text of a value, in bytes.
	maxText = 256
	// MaxValues bounds the values that are told of a rule.
	MaxValues = 16
)

// CutText bounds the text of a value.
func CutText(text string) string {
	if len(text) > maxText {
		return strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// variables are those whose values are told: data is of the documents, and may
// be large.
var variables = []string{"user", "client", "caller", "tenant", "request", "params", "passport", "now"}

// Values returns what the rule reads of in.
func (p *Program) Values(in *Input) []Value {
	var values []Value
	for _, r := range p.readings {
		name := strings.Join(r.path, ".")
		known := func(v Value) bool { return v.Path == name }
		if len(values) < MaxValues && slices.Contains(variables, r.path[0]) && !slices.ContainsFunc(values, known) {
			values = append(values, Value{name, valueText(in, r.path)})
		}
	}
	return values
}

// secrets are parts of requests that may hold secrets.
var secrets = []string{"headers", "query", "target", "body"}

func valueText(in *Input, path []string) string {
	if path[0] == "request" && (len(path) == 1 || slices.Contains(secrets, path[1])) {
		return TextNotKept
	}
	value, ok := in.ResolveName(path[0])
	for _, name := range path[1:] {
		if !ok {
			break
		}
		value, ok = member(value, name)
	}
	if !ok {
		return TextMissing
	}
	if t, isTime := value.(time.Time); isTime {
		return t.UTC().Format(time.RFC3339Nano) // as string(now) has it
	}
	return CutText(fmt.Sprintf("%q", value))
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
