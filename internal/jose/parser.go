package jose

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Parser reads JSON once, from its beginning to its end, and refuses what
// [ParseObject] refuses. It exists because encoding/json takes the last of
// duplicate members without a word, and its Decoder.Token, which would show
// them, is several times slower.
type Parser struct {
	rest            string
	depth, maxDepth int
	// foldsCase refuses members of one object that differ in case alone.
	foldsCase bool
}

// NewParser returns a parser of text, which must be UTF-8.
func NewParser(text []byte) (*Parser, error) {
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	return &Parser{rest: string(text), maxDepth: maxDepth}, nil
}

// ParseValue reads one JSON value of any kind, that nests at most maxDepth deep,
// and refuses what parsers disagree on, as [ParseObject] does. Objects in it are
// of type [Object], numbers are [json.Number].
func ParseValue(data []byte, maxDepth int) (any, error) {
	return parse(data, maxDepth, false)
}

// ParseBody is [ParseValue] for what others read after us: it refuses members of
// one object that differ in case alone, too, as [strings.EqualFold] has it. To
// some decoders, encoding/json among them, those are the same, and the last counts.
func ParseBody(data []byte, maxDepth int) (any, error) {
	return parse(data, maxDepth, true)
}

func parse(data []byte, maxDepth int, foldsCase bool) (any, error) {
	p, err := NewParser(data)
	if err != nil {
		return nil, err
	}
	p.maxDepth, p.foldsCase = maxDepth, foldsCase
	v, err := p.value()
	if err == nil {
		err = p.End()
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// End is an error unless everything was read.
func (p *Parser) End() error {
	if p.peek(); p.rest != "" {
		return p.unexpected()
	}
	return nil
}

// Object reads an object. It calls member for each, to read the value.
func (p *Parser) Object(member func(name string) error) error {
	var known names
	return p.list('{', '}', func() error {
		name, err := p.name()
		if err != nil {
			return err
		}
		if !known.add(name) {
			return errDuplicate
		}
		return member(name)
	})
}

// Strings reads an array of strings.
func (p *Parser) Strings() ([]string, error) {
	list := []string{}
	err := p.list('[', ']', func() error {
		s, err := p.String()
		list = append(list, s)
		return err
	})
	return list, err
}

// String reads a string. It refuses the replacement character: that is what
// encoding/json makes of a lone surrogate, so two strings could become one.
func (p *Parser) String() (string, error) {
	if err := p.expect('"'); err != nil {
		return "", err
	}
	end, escaped, ascii := 0, false, true
	for ; end < len(p.rest) && p.rest[end] != '"'; end++ {
		switch c := p.rest[end]; {
		case c < ' ':
			return "", p.unexpected()
		case c == '\\':
			escaped = true
			end++
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if end >= len(p.rest) {
		return "", p.unexpected()
	}
	s := p.rest[:end]
	p.rest = p.rest[end+1:]
	if escaped || !ascii {
		return unescape(s)
	}
	return s, nil
}

// unescape reads what stands between the quotes of a string.
func unescape(literal string) (s string, err error) {
	if err := json.Unmarshal([]byte(`"`+literal+`"`), &s); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if strings.ContainsRune(s, utf8.RuneError) {
		return "", fmt.Errorf("%w: not Unicode text", ErrMalformed)
	}
	return s, nil
}

// Time reads a NumericDate, as [Object.Time] does.
func (p *Parser) Time() (time.Time, error) {
	if c := p.peek(); c != '-' && !isDigit(c) {
		return time.Time{}, fmt.Errorf("%w: not a date", ErrMalformed)
	}
	number, err := p.number()
	if err != nil {
		return time.Time{}, err
	}
	return date(number)
}

// Skip reads any value.
func (p *Parser) Skip() error {
	_, err := p.value()
	return err
}

func (p *Parser) value() (any, error) {
	switch c := p.peek(); c {
	case '{':
		return p.object()
	case '[':
		return p.array()
	case '"':
		return p.String()
	case 'n':
		return nil, p.word("null")
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	}
	return p.number()
}

func (p *Parser) object() (Object, error) {
	o := Object{}
	var folded *names
	if p.foldsCase {
		folded = &names{}
	}
	return o, p.list('{', '}', func() error {
		name, err := p.name()
		if err != nil {
			return err
		}
		if _, twice := o[name]; twice || folded != nil && !folded.add(fold(name)) {
			return errDuplicate
		}
		o[name], err = p.value()
		return err
	})
}

func (p *Parser) array() ([]any, error) {
	a := []any{}
	err := p.list('[', ']', func() error {
		v, err := p.value()
		a = append(a, v)
		return err
	})
	return a, err
}

// list reads what stands between begin and end, with commas in between.
func (p *Parser) list(begin, end byte, each func() error) error {
	if err := p.expect(begin); err != nil {
		return err
	}
	if p.depth++; p.depth > p.maxDepth {
		return fmt.Errorf("%w: nested too deep", ErrMalformed)
	}
	for first := true; p.peek() != end; first = false {
		if !first {
			if err := p.expect(','); err != nil {
				return err
			}
		}
		if err := each(); err != nil {
			return err
		}
	}
	p.depth--
	return p.expect(end)
}

// name reads that of a member, and the colon.
func (p *Parser) name() (string, error) {
	name, err := p.String()
	if err != nil {
		return "", err
	}
	return name, p.expect(':')
}

// number reads one as RFC 8259 section 6 writes them.
func (p *Parser) number() (json.Number, error) {
	p.peek()
	n := 0
	next := func() byte {
		if n < len(p.rest) {
			return p.rest[n]
		}
		return 0
	}
	digits := func() bool {
		begin := n
		for isDigit(next()) {
			n++
		}
		return n > begin
	}
	if next() == '-' {
		n++
	}
	zero := next() == '0'
	begin := n
	ok := digits() && (!zero || n == begin+1)
	if ok && next() == '.' {
		n++
		ok = digits()
	}
	if c := next(); ok && (c == 'e' || c == 'E') {
		n++
		if c := next(); c == '+' || c == '-' {
			n++
		}
		ok = digits()
	}
	if !ok {
		return "", p.unexpected()
	}
	number := json.Number(p.rest[:n])
	p.rest = p.rest[n:]
	return number, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (p *Parser) word(word string) error {
	var ok bool
	if p.rest, ok = strings.CutPrefix(p.rest, word); !ok {
		return p.unexpected()
	}
	return nil
}

func (p *Parser) expect(c byte) error {
	if p.peek() != c || p.rest == "" {
		return p.unexpected()
	}
	p.rest = p.rest[1:]
	return nil
}

// peek skips white space and returns the byte that follows, 0 at the end.
func (p *Parser) peek() byte {
	for i := range len(p.rest) {
		switch c := p.rest[i]; c {
		case ' ', '\t', '\r', '\n':
		default:
			p.rest = p.rest[i:]
			return c
		}
	}
	p.rest = ""
	return 0
}

func (p *Parser) unexpected() error {
	return fmt.Errorf("%w: not JSON", ErrMalformed)
}

var errDuplicate = fmt.Errorf("%w: duplicate member", ErrMalformed)

// names is a set: of a few, as usual, a list.
type names struct {
	few   [16]string
	count int
	many  map[string]struct{}
}

// add reports whether name is new.
func (s *names) add(name string) bool {
	if slices.Contains(s.few[:s.count], name) {
		return false
	}
	if s.count < len(s.few) {
		s.few[s.count] = name
		s.count++
		return true
	}
	if s.many == nil {
		s.many = map[string]struct{}{}
	}
	if _, known := s.many[name]; known {
		return false
	}
	s.many[name] = struct{}{}
	return true
}

// fold returns what all texts have in common that [strings.EqualFold] takes for
// the same.
func fold(s string) string { return strings.Map(foldRune, s) }

// foldRune returns the least of those that r folds to, but a small letter of ASCII
// for a capital one: names that are so already are not written anew.
func foldRune(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if least >= 'A' && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}
