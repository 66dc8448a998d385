package mesh

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// decoder fills a form from YAML nodes. It is stricter than a YAML library is:
// every value has the type of its key and is within its bounds, nothing is
// there twice, unknown, null or an alias, and it goes on after a fault.
type decoder struct{ document *Document }

// value decodes one value that is written.
func (d decoder) value(path string, node *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	d.document.nodes[path] = node
	if node.Kind == yaml.AliasNode {
		d.document.fault(path, "is an alias: write the value out")
		return
	}
	if want := wantedNode(v); want.kind != node.Kind || want.tag != node.ShortTag() {
		d.document.fault(path, mismatch(want, node, v))
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, node, v.Elem(), tag)
		return
	case v.Type() == reflect.TypeFor[dataValues]():
		v.Set(reflect.ValueOf(dataValues(d.free(path, node, 0).(map[string]any))))
		return
	case v.Kind() == reflect.Map:
		d.table(path, node, v)
	case v.Kind() == reflect.Slice:
		d.list(path, node, v, tag)
	case v.Kind() == reflect.Struct && !isScalar(v.Type()):
		d.mapping(path, node.Content, v)
		return
	default:
		if err := setText(v, node.Value); err != nil {
			d.document.fault(path, err.Error())
			return
		}
	}
	if err := checkBounds(v, tag); err != nil {
		d.document.fault(path, err.Error())
	}
}

func (d decoder) list(path string, node *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	seen := map[string]int{}
	for i, item := range node.Content {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		d.value(itemPath, item, v.Index(i), reflect.StructTag(`enum:"`+tag.Get("enum")+`"`))
		if item.Kind != yaml.ScalarNode {
			continue
		}
		if first, ok := seen[item.Value]; ok {
			d.document.fault(itemPath, fmt.Sprintf("is the same as %s[%d]: remove one", path, first))
		}
		seen[item.Value] = i
	}
}

// table decodes a mapping whose keys are names of the writer's choice, such as
// conditions can read.
func (d decoder) table(path string, node *yaml.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	for pair := range slices.Chunk(node.Content, 2) {
		key, entry := pair[0], reflect.New(v.Type().Elem()).Elem()
		switch {
		case key.ShortTag() != "!!str" || !validVariable.MatchString(key.Value):
			d.document.faultAt(key, join(path, shownKey(key)), "is no name for a condition: write a letter, then letters, digits and _")
		case v.MapIndex(reflect.ValueOf(key.Value)).IsValid():
			d.document.faultAt(key, join(path, key.Value), "is there twice: remove one")
		default:
			d.value(join(path, key.Value), pair[1], entry, "")
			v.SetMapIndex(reflect.ValueOf(key.Value), entry)
		}
	}
}

// maxFreeDepth bounds how deep values nest that no form describes.
const maxFreeDepth = 20

// free decodes a value that no form describes, into what JSON has.
func (d decoder) free(path string, node *yaml.Node, depth int) any {
	d.document.nodes[path] = node
	switch {
	case node.Kind == yaml.AliasNode:
		d.document.fault(path, "is an alias: write the value out")
	case depth > maxFreeDepth:
		d.document.fault(path, fmt.Sprintf("nests deeper than %d: flatten it", maxFreeDepth))
	case node.Kind == yaml.MappingNode && node.ShortTag() == "!!map":
		return d.freeMapping(path, node, depth)
	case node.Kind == yaml.SequenceNode && node.ShortTag() == "!!seq":
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			list[i] = d.free(fmt.Sprintf("%s[%d]", path, i), item, depth+1)
		}
		return list
	case isFreeText(node):
		return node.Value
	case node.ShortTag() == "!!null":
		d.document.fault(path, "has no value: write one, or remove the key")
	default:
		if value := freeScalar(node); value != nil {
			return value
		}
		d.document.fault(path, fmt.Sprintf("%q is no text, number, true or false as JSON has them: write it so, or in quotes", node.Value))
	}
	return nil
}

// isFreeText reports whether a value is a text. What is written as a number and
// is too large for one is none, nor what is not Unicode: some readers would take
// two of those for the same.
func isFreeText(node *yaml.Node) bool {
	number := node.Style == 0 && json.Valid([]byte(node.Value))
	return node.ShortTag() == "!!str" && !number && !strings.ContainsRune(node.Value, utf8.RuneError)
}

// freeScalar returns true, false or a number that all readers take for the same,
// else nil. A number keeps its spelling: 1.0 is no whole number.
func freeScalar(node *yaml.Node) any {
	switch tag := node.ShortTag(); {
	case tag == "!!bool" && (node.Value == "true" || node.Value == "false"):
		return node.Value == "true"
	case (tag == "!!int" || tag == "!!float") && json.Valid([]byte(node.Value)):
		number := json.Number(node.Value)
		if _, err := number.Float64(); err == nil {
			return number
		}
	}
	return nil
}

func (d decoder) freeMapping(path string, node *yaml.Node, depth int) map[string]any {
	mapping := make(map[string]any, len(node.Content)/2)
	for pair := range slices.Chunk(node.Content, 2) {
		key := pair[0]
		_, twice := mapping[key.Value]
		switch {
		case !isFreeText(key):
			d.document.faultAt(key, join(path, shownKey(key)), "has a key that is no text: write it in quotes")
		case twice:
			d.document.faultAt(key, join(path, shownKey(key)), "is there twice: remove one")
		default:
			mapping[key.Value] = d.free(join(path, shownKey(key)), pair[1], depth+1)
		}
	}
	return mapping
}

// mapping decodes the keys and values in content; a mapping that is not written
// has none.
func (d decoder) mapping(path string, content []*yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	written := map[string]*yaml.Node{}
	for pair := range slices.Chunk(content, 2) {
		key, value := pair[0], pair[1]
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value && key.ShortTag() == "!!str" })
		if i < 0 {
			meant := d.unknownKey(path, key, fields)
			if written[meant] == nil {
				written[meant] = key
			}
			continue
		}
		if first := written[key.Value]; first != nil && first.Value == key.Value {
			d.document.faultAt(key, join(path, key.Value), fmt.Sprintf("is there twice, first in line %d: remove one", first.Line))
			continue
		}
		written[key.Value] = key
		d.value(join(path, key.Value), value, v.Field(i), fields[i].tag)
	}
	for i, f := range fields {
		if written[f.key] == nil {
			d.absent(join(path, f.key), v.Field(i), f.tag)
		}
	}
}

// unknownKey returns the key that was probably meant.
func (d decoder) unknownKey(path string, key *yaml.Node, fields []field) (meant string) {
	shown := shownKey(key)
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	switch meant = closest(key.Value, keys); {
	case key.Kind != yaml.ScalarNode, key.ShortTag() == "!!merge":
		d.document.faultAt(key, path, "has a key that is no word: write the keys out, each with its value")
	case meant != "":
		d.document.faultAt(key, join(path, shown), fmt.Sprintf("is no key here: did you mean %q?", meant))
		d.document.excused = append(d.document.excused, join(path, meant))
	default:
		d.document.faultAt(key, join(path, shown), "is no key here: there are "+strings.Join(keys, ", "))
	}
	return meant
}

// shownKey is how paths have a key.
func shownKey(key *yaml.Node) string {
	if key.Value != "" && strings.Trim(key.Value, unreservedCharacters) == "" {
		return key.Value
	}
	return strconv.Quote(key.Value)
}

// absent gives a value that is not written its default.
func (d decoder) absent(path string, v reflect.Value, tag reflect.StructTag) {
	if hint, ok := tag.Lookup("required"); ok {
		d.document.fault(path, "is required: "+hint)
		return
	}
	if v.Kind() == reflect.Struct && !isScalar(v.Type()) {
		d.mapping(path, nil, v)
		return
	}
	text, ok := tag.Lookup("default")
	if !ok {
		return
	}
	texts := []string{text}
	if v.Kind() == reflect.Slice {
		texts = strings.Split(text, ",")
		v.Set(reflect.MakeSlice(v.Type(), len(texts), len(texts)))
	}
	for i, text := range texts {
		to := v
		if v.Kind() == reflect.Slice {
			to = v.Index(i)
		}
		if err := setText(to, text); err != nil {
			panic(fmt.Sprintf("default of %s: %v", path, err))
		}
	}
}

// field is a key of a form.
type field struct {
	key string
	tag reflect.StructTag
	typ reflect.Type
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, t.NumField())
	for i := range fields {
		f := t.Field(i)
		fields[i] = field{f.Tag.Get("yaml"), f.Tag, f.Type}
	}
	return fields
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// isScalar reports whether a type is written as one string, whatever it is
// in Go.
func isScalar(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// nodeType is what a value must look like in YAML.
type nodeType struct {
	kind yaml.Kind
	tag  string
	word string
}

func wantedNode(v reflect.Value) nodeType {
	if v.Kind() == reflect.Pointer {
		return wantedNode(reflect.New(v.Type().Elem()).Elem())
	}
	switch {
	case isScalar(v.Type()), v.Kind() == reflect.String:
		return nodeType{yaml.ScalarNode, "!!str", "a string"}
	case v.Kind() == reflect.Struct, v.Kind() == reflect.Map:
		return nodeType{yaml.MappingNode, "!!map", "a mapping of keys to values"}
	case v.Kind() == reflect.Slice:
		return nodeType{yaml.SequenceNode, "!!seq", "a list"}
	case v.Kind() == reflect.Bool:
		return nodeType{yaml.ScalarNode, "!!bool", "true or false"}
	}
	return nodeType{yaml.ScalarNode, "!!int", "a whole number"}
}

func mismatch(want nodeType, node *yaml.Node, v reflect.Value) string {
	switch {
	case node.ShortTag() == "!!null":
		return "has no value: write one, or remove the key"
	case node.Kind == yaml.MappingNode:
		return fmt.Sprintf("must be %s, not a mapping", want.word)
	case node.Kind == yaml.SequenceNode:
		return fmt.Sprintf("must be %s, not a list", want.word)
	case want.tag == "!!str":
		// A number may be wrong for a better reason, or want quotes alone.
		if err := setText(v, node.Value); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("must be a string: write %q, in quotes", node.Value)
	}
	return fmt.Sprintf("must be %s, not %q", want.word, node.Value)
}

// checkBounds applies the tags enum, min and max.
func checkBounds(v reflect.Value, tag reflect.StructTag) error {
	if enum := tag.Get("enum"); enum != "" && v.Kind() == reflect.String {
		words := strings.Split(enum, ",")
		if !slices.Contains(words, v.String()) {
			return fmt.Errorf("%q is not %s%s", v.String(), oneOf(words), didYouMean(v.String(), words))
		}
	}
	if low, ok := tag.Lookup("min"); ok && magnitude(v) < bound(v, low) {
		return errors.New("must " + measure(v, "at least "+low))
	}
	if high, ok := tag.Lookup("max"); ok && magnitude(v) > bound(v, high) {
		return errors.New("must " + measure(v, "at most "+high))
	}
	return nil
}

// magnitude is what bounds are compared with.
func magnitude(v reflect.Value) int64 {
	switch v.Kind() {
	case reflect.Slice, reflect.String, reflect.Map:
		return int64(v.Len())
	case reflect.Uint32:
		return int64(v.Uint())
	}
	return v.Int()
}

func bound(v reflect.Value, text string) int64 {
	if isScalar(v.Type()) {
		b := reflect.New(v.Type()).Elem()
		if err := setText(b, text); err != nil {
			panic(err)
		}
		return magnitude(b)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// measure completes "must …".
func measure(v reflect.Value, limit string) string {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return "have " + limit + " in it"
	case reflect.String:
		return "be " + limit + " bytes long"
	}
	return "be " + limit
}
