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
	envoy   *envoy // nil until it runs
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
	// edge is the listener of the Envoy that the load goes through, empty for
	// none.
	edge string
	// base is the row that this one is compared with, nil for none.
	base *row
	// turns that were measured, one a round.
	turns []turn
}

// turn is what one row did in one round.
type turn struct {
	checks int
	used   usage
	// envoy is the CPU time of an Envoy in between.
	envoy time.Duration
	took  time.Duration
	times []time.Duration
	wrong int64
}

// perCheck returns CPU time in microseconds, that of Envoy included.
func (t turn) perCheck() float64 { return t.each(t.used.CPU + t.envoy) }

// each returns the microseconds of d for each check.
func (t turn) each(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(t.checks, 1))
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

// only keeps the rows that are asked for, and what they are compared with; all
// if none is.
func (t table) only(keys string) table {
	if keys == "" {
		return t
	}
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

// measure measures without Envoy, and then with one, if there is one.
func (b *bench) measure(ctx context.Context) (direct, through table, err error) {
	headers := "merged by name"
	if b.raw {
		headers = "raw"
	}
	fmt.Printf("%d rounds, turns of %s, headers %s\n\n%d checks in flight over %d connections:\n",
		b.rounds, b.turn, headers, inFlight, connections)
	if direct, err = b.table(ctx); err != nil {
		return nil, nil, err
	}
	if err := b.run(ctx, direct.only(b.only)); err != nil {
		return nil, nil, err
	}
	direct.only(b.only).print()
	path := findEnvoy()
	if path == "" {
		fmt.Println("\nThere is no Envoy on PATH, nor does ENVOY_PATH name one: nothing is measured through it.")
		return direct, nil, nil
	}
	if b.envoy, err = b.startEnvoy(ctx, path); err != nil {
		return nil, nil, err
	}
	if through, err = b.edgeTable(ctx); err != nil {
		return nil, nil, err
	}
	if err := b.run(ctx, through.only(b.only)); err != nil {
		return nil, nil, err
	}
	fmt.Printf("\nThrough Envoy with one worker, %d clients, all let through:\n", clients)
	through.only(b.only).printEdges()
	return direct, through, nil
}

// run runs the rounds. Each has another order.
func (b *bench) run(ctx context.Context, rows table) error {
	for _, r := range rows {
		if _, err := b.take(ctx, r); err != nil {
			return err // the first turn warms up
		}
	}
	shuffled := slices.Clone(rows)
	for range b.rounds {
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for _, r := range shuffled {
			t, err := b.take(ctx, r)
			if err != nil {
				return err
			}
			r.turns = append(r.turns, t)
		}
	}
	return nil
}

// edgeTable returns what is measured through Envoy.
func (b *bench) edgeTable(ctx context.Context) (table, error) {
	verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: domain, Keys: b.world.passportKeys()})
	if err != nil {
		return nil, err
	}
	for _, server := range edges[1:] {
		if _, err := b.server(ctx, server); err != nil {
			return nil, err
		}
	}
	if err := b.tryEdges(ctx, b.envoy, verifier); err != nil {
		return nil, err
	}
	requests, err := b.world.edgeRequests()
	if err != nil {
		return nil, err
	}
	all := func(context.Context) ([]*call, bool, error) { return requests, false, nil }
	null := &row{key: "envoy-null", name: "null", edge: serverNull, server: serverNull, supply: all, judge: answered}
	return table{
		{key: "envoy", name: "no authorization", edge: "none", supply: all, judge: answered},
		null,
		{key: "envoy-w1", name: "W1", edge: serverDecides, server: serverDecides, supply: all, judge: answered, base: null},
		{key: "envoy-w2", name: "W2", edge: serverMints, server: serverMints, supply: all, judge: answeredWith(verifier), base: null},
	}, nil
}

// server returns a server that runs.
func (b *bench) server(ctx context.Context, name string) (*process, error) {
	if p := b.servers[name]; p != nil {
		return p, nil
	}
	p, err := b.start(ctx, name)
	if err != nil {
		return nil, err
	}
	b.servers[name] = p
	return p, nil
}

// take is one turn of a row.
func (b *bench) take(ctx context.Context, r *row) (t turn, err error) {
	calls, fresh, err := r.supply(ctx)
	if err != nil {
		return t, err
	}
	before, err := b.used(ctx, r)
	if err != nil {
		return t, err
	}
	begin := time.Now()
	answers, err := b.drive(ctx, r, calls, fresh)
	t.took = time.Since(begin)
	if err != nil {
		return t, fmt.Errorf("%s: %w", r.name, err)
	}
	after, err := b.used(ctx, r)
	if err != nil {
		return t, err
	}
	t.checks, t.envoy = len(answers), after.envoy-before.envoy
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

func (b *bench) drive(ctx context.Context, r *row, calls []*call, fresh bool) ([]answer, error) {
	if r.edge != "" {
		return b.envoy.drive(ctx, r.edge, calls, b.turn)
	}
	p, err := b.server(ctx, r.server)
	if err != nil {
		return nil, err
	}
	return p.drive(ctx, calls, fresh, b.turn)
}

// usages are of a server, and of the Envoy before it.
type usages struct {
	usage
	envoy time.Duration
}

func (b *bench) used(ctx context.Context, r *row) (u usages, err error) {
	if r.edge != "" {
		if u.envoy, err = b.envoy.used(); err != nil {
			return u, err
		}
	}
	if r.server == "" {
		return u, nil
	}
	p, err := b.server(ctx, r.server)
	if err != nil {
		return u, err
	}
	u.usage, err = p.used()
	return u, err
}

// close ends Envoy and all servers.
func (b *bench) close() error {
	var errs []error
	if b.envoy != nil {
		errs = append(errs, b.envoy.close())
	}
	for _, p := range b.servers {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
