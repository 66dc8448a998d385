package policy

import (
	"encoding/json"
	"strconv"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// maxBodyDepth bounds how deep a body nests.
const maxBodyDepth = 32

// body returns the body as rules read it, nil unless it is JSON that has one
// reading.
func (r *Request) body() any {
	if r.Body == nil {
		return nil
	}
	value, err := jose.ParseValue(r.Body, maxBodyDepth)
	if err != nil {
		return nil
	}
	return native(value)
}

// native turns JSON into what CEL computes with: whole numbers that fit are
// int, all others double.
func native(v any) any {
	switch v := v.(type) {
	case jose.Object:
		m := make(map[string]any, len(v))
		for name, member := range v {
			m[name] = native(member)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = native(item)
		}
		return list
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return nil // beyond what a double holds
		}
		return f
	}
	return v
}
