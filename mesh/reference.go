package mesh

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Reference returns the description of all documents, in Markdown.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(referenceIntroduction)
	for _, kind := range append(slices.Clone(kinds), KindTest) {
		fields := fieldsOf(formValue(formOf[kind]()).Type())
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", kind, fields[0].tag.Get("doc"))
		b.WriteString("| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
		writeRows(&b, "", fields[1:])
	}
	return []byte(b.String())
}

const referenceIntroduction = `# Documents

<!-- Made by "chancery schema --format markdown" from package mesh. -->

A directory of ` + "`*.yaml` and `*.yml`" + ` files, several documents in each. Reading is strict: a key that is unknown,
there twice, or without a value is an error, and so are aliases and merge keys. All faults are told at once, each with
its file, line and column. Nothing changes until all documents are right together; then all of it does, at once.

Paths match whole segments: ` + "`/orders/{id}`" + ` is one segment after ` + "`/orders/`" + `, ` + "`/orders/**`" + ` is ` + "`/orders`" + ` and everything
below. Only unambiguous paths are let in at all, so a path is written in one way only (` + "`/gr%C3%B6n`" + `, not ` + "`/grön`" + `). In
conditions, ` + "`params.id`" + ` is decoded. What clients may encode or not (` + "`@`, `:`, `+`" + ` and the like) is plain in patterns and in
` + "`request.path`" + `. Durations are written ` + "`500ms`, `30s`, `5m`, `1h`" + `.

Names have up to 63 of ` + "`a-z`, `0-9` and `-`" + `, with a letter or digit at both ends. Reserved are ` + "`chancery`, `chancery-…`,\n`control-plane`, `localhost` and `plaintext`" + `.
`

var escapeMarkdown = strings.NewReplacer("|", `\|`, "*", `\*`, "<", `\<`)

func writeRows(b *strings.Builder, prefix string, fields []field) {
	for _, f := range fields {
		key := prefix + f.key
		word, inner := describe(f)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, word, defaultWord(f), escapeMarkdown.Replace(f.tag.Get("doc")))
		if inner == nil {
			continue
		}
		switch f.typ.Kind() {
		case reflect.Slice:
			key += "[]"
		case reflect.Map:
			key += ".NAME"
		}
		writeRows(b, key+".", fieldsOf(inner))
	}
}

func defaultWord(f field) string {
	if text, ok := f.tag.Lookup("default"); ok {
		return codeWords(text)
	}
	if isRequired(f) {
		return "**required**"
	}
	return ""
}

// codeWords sets words that are parted by commas as code.
func codeWords(s string) string { return "`" + strings.ReplaceAll(s, ",", "`, `") + "`" }

// describe returns what a value looks like and, for mappings, the type of what
// is in them.
func describe(f field) (word string, inner reflect.Type) {
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if enum, ok := f.tag.Lookup("enum"); ok {
		word = codeWords(enum)
		if t.Kind() == reflect.Slice {
			word = "list of " + word
		}
		return word, nil
	}
	switch {
	case scalarWords[t] != "":
		word = scalarWords[t]
	case t.Kind() == reflect.Struct:
		return "mapping", t
	case t.Kind() == reflect.Map && scalarWords[t.Elem()] != "":
		return "mapping of names to " + scalarWords[t.Elem()], nil
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return "mapping of names to mappings", t.Elem()
	case t.Kind() == reflect.Map:
		return "mapping", nil
	case t.Kind() == reflect.Slice && scalarWords[t.Elem()] != "": // some are structs
		return "list of " + scalarWords[t.Elem()] + "s", nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of mappings", t.Elem()
	case t.Kind() == reflect.Slice:
		return "list of strings", nil
	case t.Kind() == reflect.Uint32:
		word = "number"
	case t.Kind() == reflect.Bool:
		return "`true`, `false`", nil
	default:
		return "string", nil
	}
	return word + boundsWord(f), nil
}

var scalarWords = map[reflect.Type]string{
	reflect.TypeFor[name]():          "name",
	reflect.TypeFor[trustDomain]():   "domain name",
	reflect.TypeFor[duration]():      "duration",
	reflect.TypeFor[period]():        "`second`, `minute`, `hour` or duration",
	reflect.TypeFor[listenAddress](): "IP address and port",
	reflect.TypeFor[expression]():    "CEL",
	reflect.TypeFor[cidr]():          "network",
	reflect.TypeFor[size]():          "size",
	reflect.TypeFor[timestamp]():     "date and time",
	reflect.TypeFor[clientID]():      "client id",
	reflect.TypeFor[passwordHash]():  "hash of a password",
	reflect.TypeFor[secretName]():    "name of a secret",
	reflect.TypeFor[word]():          "word",
	reflect.TypeFor[Pattern]():       "path",
	reflect.TypeFor[urlHost]():       "host of a URL",
	reflect.TypeFor[moduleFile]():    "file name",
	reflect.TypeFor[moduleText]():    "Rego",
}

func boundsWord(f field) string {
	low, high := f.tag.Get("min"), f.tag.Get("max")
	switch {
	case low != "":
		return ", " + low + " to " + high
	case high != "" && f.typ != reflect.TypeFor[expression]():
		return ", up to " + high
	}
	return ""
}
