package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// bench is a run.
type bench struct {
	options
	world   *world
	dir     string
	servers map[string]*process
}

// supply returns the checks of a turn. They come for a row again and again, or
// are fresh and may be made once.
type supply func(ctx context.Context) (calls []*call, fresh bool, err error)

// row is a server under one kind of load.
type row struct {
	key, name string
	server    string
	supply    supply
	judge     judge
	// base is the row that this one is compared with, nil for none.
	base *row
	// turns that were measured, one a round.
	turns []turn
}

// turn is what one row did in one round.
type turn struct {
	checks int
	used   usage
	took   time.Duration
	times  []time.Duration
	wrong  int64
}

// perCheck returns CPU time in microseconds.
func (t turn) perCheck() float64 {
	return float64(t.used.CPU.Nanoseconds()) / 1e3 / float64(max(t.checks, 1))
}

const (
	// freshTokens and freshPassports are how many there are for a turn: those
	// of a second or less. Signing by RSA takes its time.
	freshTokens    = 2000
	freshPassports = 10000
)

// table are the rows in their order.
type table []*row

func (t table) row(key string) *row {
	for _, r := range t {
		if r.key == key {
			return r
		}
	}
	return nil
}

// table returns what is measured.
func (b *bench) table(ctx context.Context) (table, error) {
	edge, err := b.world.edgeCalls(ctx, cycle, false, !b.raw)
	if err != nil {
		return nil, err
	}
	service, err := b.world.serviceCalls(ctx, cycle, false, !b.raw)
	if err != nil {
		return nil, err
	}
	verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: domain, Keys: b.world.passportKeys()})
	if err != nil {
		return nil, err
	}
	same := func(calls []*call) supply {
		return func(context.Context) ([]*call, bool, error) { return calls, false, nil }
	}
	newTokens := b.freshTokens()
	null := &row{key: "null", name: "null", server: serverNull, supply: same(edge), judge: takesAnything}
	beside := &row{key: "null-service", name: "null, at a service", server: serverNull, supply: same(service), judge: takesAnything}
	floor := &row{key: "floor-new", name: "floor, new tokens", server: serverFloor, supply: newTokens, judge: decides}
	return table{
		null,
		{key: "transport", name: "null, our transport", server: serverTransport, supply: same(edge), judge: takesAnything, base: null},
		{key: "floor-w1", name: "floor W1", server: serverFloor, supply: same(edge), judge: decides, base: null},
		{key: "w1", name: "W1", server: serverDecides, supply: same(edge), judge: decides, base: null},
		{key: "floor-w2", name: "floor W2", server: serverFloorMints, supply: same(edge), judge: mints(verifier), base: null},
		{key: "w2", name: "W2", server: serverMints, supply: same(edge), judge: mints(verifier), base: null},
		floor,
		{key: "new", name: "W1, new tokens", server: serverDecides, supply: newTokens, judge: decides, base: floor},
		beside,
		{key: "w3", name: "W3", server: serverService, supply: b.freshPassports, judge: decides, base: beside},
		{key: "w3-repeat", name: "W3, the same again", server: serverService, supply: same(service), judge: decides, base: beside},
	}, nil
}

// only keeps the rows that are asked for, and what they are compared with.
func (t table) only(keys string) table {
	var kept table
	for _, r := range t {
		if slices.Contains(strings.Split(keys, ","), r.key) {
			if r.base != nil && kept.row(r.base.key) == nil {
				kept = append(kept, r.base)
			}
			if kept.row(r.key) == nil {
				kept = append(kept, r)
			}
		}
	}
	return kept
}

// freshTokens gives each round's tokens to those two that share it: to each of
// them they are new.
func (b *bench) freshTokens() supply {
	var calls []*call
	given := 0
	return func(ctx context.Context) ([]*call, bool, error) {
		var err error
		if given%2 == 0 {
			calls, err = b.world.edgeCalls(ctx, freshTokens, true, !b.raw)
		}
		given++
		return calls, true, err
	}
}

func (b *bench) freshPassports(ctx context.Context) ([]*call, bool, error) {
	calls, err := b.world.serviceCalls(ctx, freshPassports, true, !b.raw)
	return calls, true, err
}

// measure runs the rounds. Each has another order.
func (b *bench) measure(ctx context.Context) (table, error) {
	rows, err := b.table(ctx)
	if err != nil {
		return nil, err
	}
	if b.only != "" {
		rows = rows.only(b.only)
	}
	headers := "merged by name"
	if b.raw {
		headers = "raw"
	}
	fmt.Printf("%d rounds, turns of %s, %d checks in flight over %d connections, headers %s\n\n", b.rounds, b.turn, inFlight, connections, headers)
	for _, r := range rows {
		if _, err := b.take(ctx, r); err != nil {
			return nil, err // the first turn warms up
		}
	}
	shuffled := slices.Clone(rows)
	for range b.rounds {
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for _, r := range shuffled {
			t, err := b.take(ctx, r)
			if err != nil {
				return nil, err
			}
			r.turns = append(r.turns, t)
		}
	}
	rows.print()
	return rows, nil
}

// take is one turn of a row.
func (b *bench) take(ctx context.Context, r *row) (t turn, err error) {
	p := b.servers[r.server]
	if p == nil {
		if p, err = b.start(ctx, r.server); err != nil {
			return t, err
		}
		b.servers[r.server] = p
	}
	calls, fresh, err := r.supply(ctx)
	if err != nil {
		return t, err
	}
	before, err := p.used()
	if err != nil {
		return t, err
	}
	begin := time.Now()
	answers, err := p.drive(ctx, calls, fresh, b.turn)
	t.took = time.Since(begin)
	if err != nil {
		return t, fmt.Errorf("%s: %w", r.name, err)
	}
	after, err := p.used()
	if err != nil {
		return t, err
	}
	t.checks = len(answers)
	t.used = usage{
		CPU: after.CPU - before.CPU, Objects: after.Objects - before.Objects, Bytes: after.Bytes - before.Bytes, RSS: after.RSS,
	}
	for _, a := range answers {
		t.times = append(t.times, a.took)
	}
	var first error
	if t.wrong, first = r.judge.wrong(answers); first != nil {
		fmt.Printf("%s: %d wrong answers, such as: %v\n", r.name, t.wrong, first)
	}
	return t, nil
}

// close ends all servers.
func (b *bench) close() error {
	var errs []error
	for _, p := range b.servers {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
