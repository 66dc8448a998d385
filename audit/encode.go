package audit

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// The kinds of lines in a decision log.
const (
	kindDecision = "decision"
	kindDropped  = "dropped"
)

// encoder writes the lines of one log. It is by hand since it is most of what
// a record costs, and since lines must be harmless on a terminal too, which is
// more than JSON asks.
type encoder struct {
	// source are the fields that all lines share.
	source object
	// second is the last one that was written, and digits how.
	second int64
	digits []byte
}

func newEncoder(agent, instance, run string) *encoder {
	e := &encoder{}
	e.source.text("agent", agent)
	e.source.text("instance", instance)
	e.source.text("run", run)
	return e
}

// decision appends d as one line of JSON.
func (e *encoder) decision(b []byte, d *Decision) []byte {
	o := e.begin(b, kindDecision, d.Time)
	o.number("sequence", d.Sequence)
	o.text("id", d.ID)
	o.text("decision", d.Decision)
	o.number("status", uint64(max(d.Status, 0)))
	o.text("reason", d.Reason)
	o.text("policy", d.Policy)
	o.text("revision", d.Revision)
	o.text("route", d.Route)
	o.text("rule", d.Rule)
	o.text("method", d.Method)
	o.text("path", d.Path)
	o.text("user", d.User)
	o.text("tenant", d.Tenant)
	o.text("client", d.Client)
	o.text("caller", d.Caller)
	o.text("ip", d.IP)
	o.text("provider", d.Provider)
	o.list("credentials", d.Credentials)
	o.text("txn", d.Transaction)
	o.text("request_id", d.RequestID)
	o.number("duration_us", uint64(max(d.Microseconds, 0)))
	return o.end()
}

// dropped appends the line that stands for n decisions without one.
func (e *encoder) dropped(b []byte, sequence, n uint64) []byte {
	o := e.begin(b, kindDropped, time.Now())
	o.number("sequence", sequence)
	o.number("count", n)
	return o.end()
}

func (e *encoder) begin(b []byte, kind string, at time.Time) object {
	o := append(object(b), `{"schema":`...)
	o = strconv.AppendUint(o, SchemaVersion, 10)
	o.text("kind", kind)
	o.key("time")
	o = append(append(append(o, '"'), e.to(at)...), '.')
	for micros, unit := at.Nanosecond()/1000, 100_000; unit > 0; unit /= 10 {
		o = append(o, byte('0'+micros/unit%10))
	}
	o = append(o, 'Z', '"')
	return append(o, e.source...)
}

// to returns a time up to its seconds, which is mostly that of the line before.
func (e *encoder) to(at time.Time) []byte {
	if second := at.Unix(); second != e.second || e.digits == nil {
		e.second, e.digits = second, at.UTC().AppendFormat(e.digits[:0], "2006-01-02T15:04:05")
	}
	return e.digits
}

// object is a line in the making.
type object []byte

func (o object) end() []byte { return append(o, '}', '\n') }

func (o *object) key(name string) {
	*o = append(append(append(*o, ',', '"'), name...), '"', ':')
}

// text leaves out what is empty.
func (o *object) text(name, value string) {
	if value != "" {
		o.key(name)
		*o = quote(*o, value)
	}
}

func (o *object) number(name string, value uint64) {
	o.key(name)
	*o = strconv.AppendUint(*o, value, 10)
}

func (o *object) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	o.key(name)
	*o = append(*o, '[')
	for i, v := range values {
		if i > 0 {
			*o = append(*o, ',')
		}
		*o = quote(*o, v)
	}
	*o = append(*o, ']')
}

// quote appends s as a JSON string in which everything is escaped that does not
// show as itself: control characters (an escape sequence would command the
// terminal), line separators (a reader of lines would see two), marks that turn
// the direction of text, and bytes that are not UTF-8.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	begin := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf && strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		b = escape(append(b, s[begin:i]...), r)
		i += size
		begin = i
	}
	return append(append(b, s[begin:]...), '"')
}

// plain are the bytes that stand for themselves.
var plain = func() (p [256]bool) {
	for c := ' '; c <= '~'; c++ {
		p[c] = c != '"' && c != '\\'
	}
	return p
}()

const hexDigits = "0123456789abcdef"

func escape(b []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case r == '\n':
		return append(b, '\\', 'n')
	case r == '\r':
		return append(b, '\\', 'r')
	case r > 0xffff: // a surrogate pair
		r -= 0x10000
		return escapeUnit(escapeUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return escapeUnit(b, r)
}

func escapeUnit(b []byte, r rune) []byte {
	return append(slices.Grow(b, 6), '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
