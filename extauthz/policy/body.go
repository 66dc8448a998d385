package policy

import (
	"encoding/json"
	"strconv"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// maxBodyDepth bounds how deep a body nests.
const maxBodyDepth = 32

// readBody returns the body as rules read it, nil unless it is JSON that has one
// reading.
func (r *Request) readBody() any {
	if r.Body == nil {
		return nil
	}
	value, err := jose.ParseBody(r.Body, maxBodyDepth)
	if err != nil {
		return nil
	}
	body, err := native(value)
	if err != nil {
		return nil
	}
	return body
}

// native turns JSON into what CEL computes with: whole numbers that fit are
// int, all others double. A number beyond that is an error: nobody knows what
// others take it for.
func native(v any) (any, error) {
	switch v := v.(type) {
	case jose.Object:
		m := make(map[string]any, len(v))
		for name, member := range v {
			var err error
			if m[name], err = native(member); err != nil {
				return nil, err
			}
		}
		return m, nil
	case []any:
		for i := range v {
			var err error
			if v[i], err = native(v[i]); err != nil {
				return nil, err
			}
		}
		return v, nil
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		return v.Float64()
	}
	return v, nil
}
