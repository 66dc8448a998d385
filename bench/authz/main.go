// Command authz measures what an authorization check costs: the CPU time of the
// server's process alone, against a server that answers OK without any work
// (null) and one that does the least that anybody must (floor). All of them
// are driven by the same load and take turns, so that what else the machine
// does falls on all alike.
//
// It prints tables for people and, as its last line, all figures as one JSON
// object. It exits with 1 if an answer was wrong, or if a figure is not what
// Chancery promises; what is not measured is null, and not judged, nor are figures
// of fewer than nine rounds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds   int
	turn     time.Duration
	raw      bool
	profiles string
	only     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.rounds, "rounds", 9, "rounds in which all servers take turns")
	flag.DurationVar(&o.turn, "turn", 600*time.Millisecond, "length of a turn")
	flag.BoolVar(&o.raw, "raw", false, "send headers raw, as Chancery tells its Envoys to, and not merged by name as others do")
	flag.StringVar(&o.profiles, "profiles", "", "directory for a CPU profile of each server")
	flag.StringVar(&o.only, "only", "", "measure these rows alone, separated by commas, with what they are compared with; no figures then")
	server := flag.String("serve", "", "serve as one of the servers (for this program's own use)")
	dir := flag.String("dir", "", "directory of keys and sockets (for this program's own use)")
	flag.Parse()
	if *server != "" {
		return serve(*server, *dir)
	}
	return measure(ctx, o)
}

func measure(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := newWorld(filepath.Join(dir, worldFile))
	if err != nil {
		return err
	}
	b := &bench{options: o, world: w, dir: dir, servers: map[string]*process{}}
	defer func() { err = errors.Join(err, b.close()) }()
	direct, through, err := b.measure(ctx)
	if err != nil || o.only != "" {
		return err
	}
	f := newFigures(direct, through, o.rounds)
	if note := f.unjudged(); note != "" {
		fmt.Printf("\n%s\n", note)
	}
	line, err := json.Marshal(f)
	fmt.Printf("\n%s\n", line)
	return errors.Join(err, f.promises())
}
