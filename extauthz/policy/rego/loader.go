package rego

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/internal/dirwatch"
)

// LoaderConfig says what a [Loader] does.
type LoaderConfig struct {
	// Query is what is asked of each policy; see [Policy.Prepare]. Required.
	Query   string
	Options Options
	// Use gets each query that is prepared. Required.
	Use func(*Query)
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics chancery_policy_refused,
	// chancery_policy_loads_total and chancery_policy_loaded_timestamp_seconds;
	// nil for none.
	Registerer prometheus.Registerer
}

// Loader keeps a query up to date with its policy. What is not good is refused,
// loudly, and the last good one stays. It is for one goroutine.
type Loader struct {
	LoaderConfig
	loads   *prometheus.CounterVec
	refused prometheus.Gauge
	loaded  prometheus.Gauge
	// told is the refusal that was logged last.
	told string
}

// NewLoader returns a Loader that has loaded nothing.
func NewLoader(c LoaderConfig) (*Loader, error) {
	if c.Query == "" || c.Use == nil || c.Logger == nil {
		return nil, errors.New("policy loader needs a query, its user and a logger")
	}
	l := &Loader{
		LoaderConfig: c,
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chancery_policy_loads_total",
			Help: "Policies that were read, by result: loaded, refused.",
		}, []string{"result"}),
		refused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_policy_refused",
			Help: "1 while the newest policy is refused, and an older one decides or none.",
		}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chancery_policy_loaded_timestamp_seconds",
			Help: "When the policy that decides was loaded; 0 if there is none.",
		}),
	}
	if c.Registerer != nil {
		if err := errors.Join(c.Registerer.Register(l.loads), c.Registerer.Register(l.refused), c.Registerer.Register(l.loaded)); err != nil {
			return nil, fmt.Errorf("register policy metrics: %w", err)
		}
	}
	return l, nil
}

// Load compiles and prepares a policy and lets it be used, or says what is wrong
// with it and leaves the last one in use; see [Loader.Refuse].
func (l *Loader) Load(ctx context.Context, source Source) error {
	policy, err := Compile(ctx, source)
	if err != nil {
		return err
	}
	query, err := policy.Prepare(ctx, l.Query, l.Options)
	if err != nil {
		return err
	}
	l.Use(query)
	l.loads.WithLabelValues("loaded").Inc()
	l.loaded.SetToCurrentTime()
	l.Confirm()
	l.Logger.InfoContext(ctx, "policy loaded", "revision", source.Revision, "modules", len(source.Modules))
	return nil
}

// Refuse tells of a policy that was not good enough to be used, or of a way to
// it that is blocked; once, if it is the same again and again.
func (l *Loader) Refuse(ctx context.Context, err error) {
	l.loads.WithLabelValues("refused").Inc()
	l.refused.Set(1)
	if text := err.Error(); text != l.told {
		l.told = text
		l.Logger.ErrorContext(ctx, "policy refused, the last good one stays", "err", err)
	}
}

// Confirm tells that there is no newer policy than the one in use.
func (l *Loader) Confirm() {
	l.told = ""
	l.refused.Set(0)
}

// Watch loads the policy at path as [Read] does, and again whenever it has
// changed, until ctx ends. The first one must be good, or that is the error:
// what is wrong from the beginning is for whoever begins.
func (l *Loader) Watch(ctx context.Context, path string, version ast.RegoVersion) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var first, last string // what was read, or why it was not
	var fault error
	err := dirwatch.Watch(ctx, l.Logger, func() []string { return directories(path) }, func() {
		source, err := Read(path, version)
		read := source.Revision
		if err != nil {
			read = err.Error()
		}
		if read == last {
			return
		}
		if err == nil {
			err = l.Load(ctx, source)
		}
		switch last = read; {
		case err == nil:
			first = read
		case first == "":
			fault = err
			end()
		default:
			l.Refuse(ctx, err)
		}
	})
	return errors.Join(err, fault)
}
