package jose

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ParseValue reads one JSON value of any kind, that nests at most maxDepth deep,
// and refuses what parsers disagree on, as [ParseObject] does. Objects in it are
// of type [Object], numbers are [json.Number].
func ParseValue(data []byte, maxDepth int) (any, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, fmt.Errorf("%w: not JSON in UTF-8", ErrMalformed)
	}
	p := parser{rest: string(data) + " ", maxDepth: maxDepth} // a number ends before something
	return p.value(0)
}

// parser reads what is known to be valid JSON. It exists because encoding/json
// takes the last of duplicate members without a word, and its Decoder.Token,
// which would show them, is several times slower.
type parser struct {
	rest     string
	maxDepth int
}

// next skips white space and returns the byte that follows.
func (p *parser) next() byte {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest[0]
}

// more skips a comma and reports whether the list goes on, or skips its end.
func (p *parser) more(end byte) bool {
	c := p.next()
	if c == ',' || c == end {
		p.rest = p.rest[1:]
	}
	return c != end
}

func (p *parser) value(depth int) (any, error) {
	if depth > p.maxDepth {
		return nil, fmt.Errorf("%w: nested too deep", ErrMalformed)
	}
	switch p.next() {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		return p.text()
	}
	n := strings.IndexAny(p.rest, ",]} \t\r\n")
	word := p.rest[:n]
	p.rest = p.rest[n:]
	switch word {
	case "null":
		return nil, nil
	case "true", "false":
		return word == "true", nil
	}
	return json.Number(word), nil
}

func (p *parser) object(depth int) (Object, error) {
	o := Object{}
	p.rest = p.rest[len("{"):]
	for p.more('}') {
		p.next()
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("%w: duplicate member", ErrMalformed)
		}
		p.next()
		p.rest = p.rest[len(":"):]
		if o[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (p *parser) array(depth int) ([]any, error) {
	a := []any{}
	p.rest = p.rest[len("["):]
	for p.more(']') {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	return a, nil
}

// text reads a string. It refuses the replacement character: that is what
// encoding/json makes of a lone surrogate, so two strings could become one.
func (p *parser) text() (string, error) {
	end, escaped := 1, false
	for p.rest[end] != '"' {
		if p.rest[end] == '\\' {
			escaped = true
			end++
		}
		end++
	}
	s, literal := p.rest[1:end], p.rest[:end+1]
	p.rest = p.rest[end+1:]
	if escaped {
		if err := json.Unmarshal([]byte(literal), &s); err != nil {
			return "", fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return "", fmt.Errorf("%w: not Unicode text", ErrMalformed)
	}
	return s, nil
}
