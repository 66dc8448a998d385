// Package rego runs policies that are written in Rego, with OPA as a library.
//
// A [Source] (modules and data) is compiled once, a [Query] on it is prepared
// once, and each decision is an evaluation of that: nothing is parsed or
// compiled while a request waits.
//
//	policy, err := rego.Compile(ctx, source)
//	query, err := policy.Prepare(ctx, "data.envoy.authz.allow", rego.Options{})
//	result, err := query.Eval(ctx, input, time.Now())
//
// An evaluation touches neither the network nor files nor the environment, and
// it ends: functions that would do otherwise are faults of the module that
// calls them (see [Refused]), and what is left is interrupted when its time is
// over. Time is an input: all of an evaluation, time.now_ns included, has the
// moment that Eval was given. rand.intn and uuid.rfc4122 are let be, as they
// serve for identifiers; a policy that decides by them decides by chance.
//
// As OPA does, what a builtin function cannot do (parse what is no JSON, say) is
// undefined and not an error. Faults of modules are [mesh.Faults], with file,
// line and column.
package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	oparego "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Module is the text of one Rego file.
type Module struct {
	// File is what faults call it.
	File string
	Text string
	// Version is that of the language. The zero value is v1, as in OPA 1.0; a
	// v0 module that says "import rego.v1" is v1 all the same.
	Version ast.RegoVersion
}

// Version returns the version of modules that do not say theirs: v0 where
// policies are from before OPA 1.0.
func Version(v0 bool) ast.RegoVersion {
	if v0 {
		return ast.RegoV0
	}
	return ast.RegoUndefined
}

// Source is what a policy is made of.
type Source struct {
	Modules []Module
	// Data is the base document, what modules read as data.
	Data map[string]any
	// Revision says which one it is, to people; it may be empty.
	Revision string
}

// Policy is a compiled source, safe for concurrent use.
type Policy struct {
	compiler *ast.Compiler
	store    storage.Store
	revision string
}

// Revision returns the source's.
func (p *Policy) Revision() string { return p.revision }

// Compile compiles a source, or says everything that is wrong with it.
func Compile(ctx context.Context, source Source) (*Policy, error) {
	modules, err := parse(source.Modules)
	if err != nil {
		return nil, err
	}
	data := source.Data
	if data == nil {
		data = map[string]any{}
	}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("compile rego: %w", err)
	}
	defer store.Abort(ctx, txn)
	// Without EnablePrintStatements the compiler drops calls of print: what a
	// policy reads are secrets, too, and the log is no place for them.
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).
		WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, Faults(compiler.Errors)
	}
	return &Policy{compiler: compiler, store: store, revision: source.Revision}, nil
}

func parse(modules []Module) (map[string]*ast.Module, error) {
	parsed := map[string]*ast.Module{}
	var wrong ast.Errors
	for _, m := range modules {
		module, err := ast.ParseModuleWithOpts(m.File, m.Text, ast.ParserOptions{RegoVersion: m.Version})
		switch errs, ok := errors.AsType[ast.Errors](err); {
		case ok && isV0(m):
			wrong = append(wrong, ast.NewError(ast.ParseErr, errs[0].Location, "%s: the module is Rego v0: "+
				"say so (v0: true in a document, --v0-compatible on the command line), or bring it up to date with opa fmt --v0-v1", errs[0].Message))
		case ok:
			wrong = append(wrong, errs...)
		case err != nil:
			wrong = append(wrong, &ast.Error{Message: err.Error(), Location: &ast.Location{File: m.File}})
		case parsed[m.File] != nil:
			wrong = append(wrong, &ast.Error{Message: "there are two modules of that name", Location: &ast.Location{File: m.File}})
		default:
			parsed[m.File] = module
			wrong = append(wrong, refusedCalls(module)...)
		}
	}
	if len(wrong) > 0 {
		return nil, Faults(wrong)
	}
	return parsed, nil
}

// isV0 reports whether a module that is no v1 would do as v0.
func isV0(m Module) bool {
	_, err := ast.ParseModuleWithOpts(m.File, m.Text, ast.ParserOptions{RegoVersion: ast.RegoV0})
	return err == nil && m.Version != ast.RegoV0
}

// Options say how queries are evaluated.
type Options struct {
	// Timeout of one; default 100 ms.
	Timeout time.Duration
	// Concurrent is how many of the query there are at a time, the others wait:
	// memory is bounded, too. By default all queries of the process share 4 for each
	// processor, and 16 at least.
	Concurrent int
	// Strict has a function that fails end the evaluation with an error.
	// Otherwise what it is part of is undefined, and "not" of it true.
	Strict bool
}

// Query is a question to a policy, prepared, and safe for concurrent use.
type Query struct {
	prepared oparego.PreparedEvalQuery
	revision string
	timeout  time.Duration
	slots    chan struct{}
	explanation
}

// slots are those of all queries that have none of their own.
var slots = make(chan struct{}, max(16, 4*runtime.GOMAXPROCS(0)))

func (o Options) slots() chan struct{} {
	if o.Concurrent == 0 {
		return slots
	}
	return make(chan struct{}, o.Concurrent)
}

// Prepare prepares a query, which is the name of a rule or of a part of the
// data, such as data.envoy.authz.allow. There must be something of that name.
func (p *Policy) Prepare(ctx context.Context, query string, o Options) (*Query, error) {
	ref, err := p.find(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", query, err)
	}
	prepared, err := oparego.New(
		oparego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ref)))),
		oparego.Compiler(p.compiler), oparego.Store(p.store), oparego.Capabilities(capabilities()),
		oparego.StrictBuiltinErrors(o.Strict),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", query, err)
	}
	return &Query{
		prepared: prepared,
		revision: p.revision,
		timeout:  cmp.Or(o.Timeout, 100*time.Millisecond),
		slots:    o.slots(),

		explanation: explain(p.compiler, ref),
	}, nil
}

// find parses the name of something that is there. It takes nothing else, so
// that a name never becomes an expression.
func (p *Policy) find(ctx context.Context, query string) (ast.Ref, error) {
	ref, ok := parseName(query)
	if !ok {
		return nil, errors.New("is not a name such as data.envoy.authz.allow")
	}
	if len(p.compiler.GetRules(ref)) > 0 {
		return ref, nil
	}
	path, err := storage.NewPathForRef(ref)
	if err == nil {
		_, err = storage.ReadOne(ctx, p.store, path)
	}
	if err != nil {
		return nil, errors.New("the policy has nothing of that name")
	}
	return ref, nil
}

func parseName(query string) (ast.Ref, bool) {
	body, err := ast.ParseBody(query)
	if err != nil || len(body) != 1 || body[0].Negated || len(body[0].With) > 0 {
		return nil, false
	}
	term, ok := body[0].Terms.(*ast.Term)
	if !ok {
		return nil, false
	}
	ref, ok := term.Value.(ast.Ref)
	return ref, ok && len(ref) > 1 && ref.HasPrefix(ast.DefaultRootRef) && ref.IsGround()
}

// Revision returns that of the policy's source.
func (q *Query) Revision() string { return q.revision }

var (
	// ErrUndefined says that the policy has no answer.
	ErrUndefined = errors.New("undefined decision")
	// ErrTimeout says that the policy had none in time.
	ErrTimeout = errors.New("evaluation took too long")
)

// Eval returns what the query comes to: nil, bool, string, [json.Number], []any
// (sets, too) or map[string]any. now is the time that the policy sees. The error
// is [ErrUndefined], [ErrTimeout], that of ctx, or an error of the policy, such as
// rules that contradict each other.
func (q *Query) Eval(ctx context.Context, input ast.Value, now time.Time) (any, error) {
	return q.run(ctx, input, now)
}

func (q *Query) run(ctx context.Context, input ast.Value, now time.Time, more ...oparego.EvalOption) (any, error) {
	if q == nil {
		return nil, errors.New("evaluate: no policy")
	}
	evaluation, done := context.WithTimeoutCause(ctx, q.timeout, ErrTimeout)
	defer done()
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-evaluation.Done():
		return nil, fmt.Errorf("evaluate: %w", context.Cause(evaluation))
	}
	results, err := q.eval(evaluation, input, now, more)
	switch {
	case evaluation.Err() != nil: // also when it would not be interrupted
		return nil, fmt.Errorf("evaluate: %w", context.Cause(evaluation))
	case err != nil:
		return nil, fmt.Errorf("evaluate: %w", withoutValues(err))
	case len(results) == 0:
		return nil, ErrUndefined
	case len(results) > 1 || len(results[0].Expressions) != 1:
		return nil, errors.New("evaluate: several results")
	}
	return results[0].Expressions[0].Value, nil
}

// withoutValues leaves out of an error of a function what it was called with, which
// may be a secret.
func withoutValues(err error) error {
	e, ok := errors.AsType[*topdown.Error](err)
	if !ok || e.Code != topdown.BuiltinErr && e.Code != topdown.TypeErr {
		return err
	}
	function, _, _ := strings.Cut(e.Message, ":")
	return &topdown.Error{Code: e.Code, Message: function + " failed", Location: e.Location}
}

func (q *Query) eval(ctx context.Context, input ast.Value, now time.Time, more []oparego.EvalOption) (oparego.ResultSet, error) {
	// OPA would wait for ctx in a goroutine for each evaluation.
	interrupt := topdown.NewCancel()
	defer context.AfterFunc(ctx, interrupt.Cancel)()
	return q.prepared.Eval(ctx, append(more,
		oparego.EvalParsedInput(input),
		oparego.EvalTime(now),
		oparego.EvalExternalCancel(interrupt),
		oparego.EvalInterQueryBuiltinValueCache(kept),
		oparego.EvalSortSets(true),
	)...)
}
