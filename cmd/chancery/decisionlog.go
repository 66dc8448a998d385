package main

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
)

// decisionLogFlags are the flags of whatever decides.
type decisionLogFlags struct {
	to    string
	mib   uint16
	files uint16
}

func (f *decisionLogFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.to, "decision-log", "", `file of the decision log, or "stdout", or "off" (default "decisions.jsonl" in --state)`)
	flags.Uint16Var(&f.mib, "decision-log-size", 64, "MiB that the file has before it gives way to a new one")
	flags.Uint16Var(&f.files, "decision-log-files", 8, "how many older files are kept beside it")
}

// sink returns where decisions go, nil for nowhere.
func (f *decisionLogFlags) sink(state string, log *slog.Logger) (audit.Sink, error) {
	path := f.to
	switch f.to {
	case "off":
		return nil, nil
	case "stdout":
		return audit.NewStream(os.Stdout)
	case "":
		path = filepath.Join(state, "decisions.jsonl")
	}
	return audit.NewFile(audit.FileConfig{Path: path, MaxSize: int64(f.mib) << 20, MaxFiles: int(f.files), Logger: log})
}
