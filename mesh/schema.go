package mesh

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Schema returns the JSON Schema (2020-12) of a document, for editors.
func Schema() []byte {
	definitions, alternatives := map[string]any{}, []any{}
	for _, kind := range slices.Sorted(maps.Keys(formOf)) {
		definitions[string(kind)] = typeSchema(formValue(formOf[kind]()).Type())
		alternatives = append(alternatives, map[string]any{"$ref": "#/$defs/" + string(kind)})
	}
	return marshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A Chancery document",
		"oneOf":   alternatives,
		"$defs":   definitions,
	})
}

func marshalIndent(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // Maps of strings, numbers and lists.
	}
	return []byte(b.String())
}

func typeSchema(t reflect.Type) map[string]any {
	if s, ok := scalarSchemas[t]; ok {
		return maps.Clone(s)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeSchema(t.Elem())}
	case reflect.Struct:
		return mappingSchema(t)
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return map[string]any{"type": "object"}
		}
		return map[string]any{"type": "object", "additionalProperties": typeSchema(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Uint32:
		return map[string]any{"type": "integer", "minimum": 0}
	}
	return map[string]any{"type": "string", "minLength": 1}
}

const durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`

var scalarSchemas = map[reflect.Type]map[string]any{
	reflect.TypeFor[name]():          {"type": "string", "pattern": namePattern},
	reflect.TypeFor[trustDomain]():   {"type": "string", "pattern": trustDomainPattern},
	reflect.TypeFor[urlHost]():       {"type": "string", "pattern": urlHostPattern},
	reflect.TypeFor[duration]():      {"type": "string", "pattern": durationPattern},
	reflect.TypeFor[period]():        {"type": "string", "pattern": "^(second|minute|hour)$|" + durationPattern},
	reflect.TypeFor[listenAddress](): {"type": "string", "pattern": `^.*:[1-9][0-9]*$`},
	reflect.TypeFor[cidr]():          {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$"},
	reflect.TypeFor[alternateName](): {"type": "string", "pattern": "^[!-)+-~]+$"},
	reflect.TypeFor[size]():          {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB)$"},
	reflect.TypeFor[timestamp]():     {"type": "string", "format": "date-time"},
	reflect.TypeFor[identifier]():    {"type": "string", "minLength": 1, "maxLength": maxIdentifierLength},
	reflect.TypeFor[userName]():      {"type": "string", "minLength": 1, "maxLength": maxIdentifierLength},
	reflect.TypeFor[scopeToken]():    {"type": "string", "pattern": scopePattern},
	reflect.TypeFor[moduleFile]():    {"type": "string", "pattern": moduleFilePattern},
	reflect.TypeFor[moduleText]():    {"type": "string"},
	reflect.TypeFor[claimPath]():     {"type": "string", "pattern": claimPathPattern, "maxLength": maxClaimPathLength},
	reflect.TypeFor[keyID]():         {"type": "string", "pattern": keyIDPattern},
	reflect.TypeFor[keyHash]():       {"type": "string", "pattern": keyHashPattern},
	reflect.TypeFor[passwordHash]():  {"type": "string", "pattern": passwordHashPattern},
	reflect.TypeFor[secretName]():    {"type": "string", "pattern": namePattern},
	reflect.TypeFor[word]():          {"type": "string", "pattern": scopePattern, "maxLength": maxIdentifierLength},
	reflect.TypeFor[clientID]():      {"type": "string", "pattern": "^[!-~]{1,256}$"},
	reflect.TypeFor[Pattern]():       {"type": "string", "pattern": "^/", "maxLength": maxPatternLength},
}

func mappingSchema(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fieldsOf(t) {
		properties[f.key] = fieldSchema(f)
		if isRequired(f) {
			required = append(required, f.key)
		}
	}
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// isRequired reports whether a key must be there, or one below it.
func isRequired(f field) bool {
	if _, ok := f.tag.Lookup("required"); ok {
		return true
	}
	return f.typ.Kind() == reflect.Struct && !isScalar(f.typ) && slices.ContainsFunc(fieldsOf(f.typ), isRequired)
}

func fieldSchema(f field) map[string]any {
	s := typeSchema(f.typ)
	s["description"] = f.tag.Get("doc")
	values := s
	if items, ok := s["items"].(map[string]any); ok {
		values = items
		s["uniqueItems"] = true
	}
	if enum, ok := f.tag.Lookup("enum"); ok {
		values["enum"] = strings.Split(enum, ",")
	}
	if text, ok := f.tag.Lookup("default"); ok {
		s["default"] = defaultValue(s["type"], text)
	}
	bounds := map[any][2]string{
		"integer": {"minimum", "maximum"}, "array": {"minItems", "maxItems"}, "string": {"minLength", "maxLength"},
		"object": {"minProperties", "maxProperties"},
	}[s["type"]]
	for i, tag := range []string{"min", "max"} {
		// Bounds of durations are beyond JSON Schema.
		if n, err := strconv.Atoi(f.tag.Get(tag)); err == nil {
			s[bounds[i]] = n
		}
	}
	return s
}

func defaultValue(schemaType any, text string) any {
	switch schemaType {
	case "array":
		return strings.Split(text, ",")
	case "string":
		return text
	}
	return json.RawMessage(text)
}
