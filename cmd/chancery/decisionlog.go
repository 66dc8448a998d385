package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/internal/commandsocket"
)

// decisionLogFlags are the flags of whatever decides.
type decisionLogFlags struct {
	to    string
	mib   uint16
	files uint16
}

func (f *decisionLogFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.to, "decision-log", "", `file of the decision log, or "stdout", or "off" (default "decisions.jsonl" in --state, if there is one)`)
	flags.Uint16Var(&f.mib, "decision-log-size", 64, "MiB that the file has before it gives way to a new one")
	flags.Uint16Var(&f.files, "decision-log-files", 8, "how many older files are kept beside it")
}

// sink returns where decisions go, nil for nowhere. Without a state directory that
// is where they go by default.
func (f *decisionLogFlags) sink(state string, log *slog.Logger) (audit.Sink, error) {
	path := f.to
	switch {
	case f.to == "off", f.to == "" && state == "":
		return nil, nil
	case f.to == "stdout":
		return audit.NewStream(os.Stdout)
	case f.to == "":
		path = filepath.Join(state, "decisions.jsonl")
	}
	return audit.NewFile(audit.FileConfig{Path: path, MaxSize: int64(f.mib) << 20, MaxFiles: int(f.files), Logger: log})
}

// keptDecisions are where something that decides keeps its decisions.
type keptDecisions struct {
	*decisions.Keeper
	log *audit.DecisionLog
}

// keep returns where decisions are kept.
func (f *decisionLogFlags) keep(state string, logger *slog.Logger, metrics prometheus.Registerer) (*keptDecisions, error) {
	sink, err := f.sink(state, logger)
	if err != nil {
		return nil, err
	}
	kept, key := &keptDecisions{}, decisions.NewKey()
	if sink != nil {
		kept.log, err = audit.NewDecisionLog(audit.DecisionLogConfig{Sink: sink, Logger: logger, Registerer: metrics, Agent: "authz"})
	}
	if err == nil && state != "" {
		key, err = decisions.ReadKey(filepath.Join(state, "decisions.key"))
	}
	kept.Keeper = decisions.New(decisions.Config{Log: kept.log, Ring: audit.NewRing(0, 0), Key: key})
	return kept, err
}

// serve tells of decisions, at the socket of a state directory if there is one,
// while run runs.
func (k *keptDecisions) serve(ctx context.Context, state string, suppose decisions.Supposer, run func(context.Context) error) error {
	defer k.log.Start()()
	if state == "" {
		return run(ctx)
	}
	mux := http.NewServeMux()
	k.Handle(mux, suppose)
	group, ctx := errgroup.WithContext(ctx)
	telling, stop := context.WithCancel(ctx)
	group.Go(func() error { return commandsocket.Serve(telling, state, mux) })
	group.Go(func() error {
		defer stop()
		return run(ctx)
	})
	return group.Wait()
}
