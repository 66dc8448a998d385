package rego

import (
	"context"
	"regexp"
	"regexp/syntax"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
)

const (
	// keptPatterns is how many patterns are kept; OPA bounds how many there are of
	// other things, such as 100 sets of keys.
	keptPatterns = 256
	// keptSize is what one of them may take, as clients have a say in how large
	// they are: some policies make patterns of what a request says.
	keptSize = 64 << 10
)

// kept is what builtin functions keep between the evaluations of all queries:
// compiled patterns and parsed keys, which depend on nothing but their text.
// Tokens are verified each time, as by default of OPA: it would keep them whole,
// forged ones too, and take what one function says of a token for what another
// would.
var kept = bounded{newCache()}

func newCache() cache.InterQueryValueCache {
	patterns := keptPatterns
	return cache.NewInterQueryValueCache(context.Background(), &cache.Config{
		InterQueryBuiltinValueCache: cache.InterQueryBuiltinValueCacheConfig{MaxNumEntries: &patterns},
	})
}

// bounded keeps nothing that is too large.
type bounded struct{ cache.InterQueryValueCache }

// Insert implements [cache.InterQueryValueCache].
func (b bounded) Insert(key ast.Value, value any) int {
	return boundedBucket{b.InterQueryValueCache}.Insert(key, value)
}

// GetCache implements [cache.InterQueryValueCache].
func (b bounded) GetCache(name string) cache.InterQueryValueCacheBucket {
	bucket := b.InterQueryValueCache.GetCache(name)
	if bucket == nil {
		return nil
	}
	return boundedBucket{bucket}
}

type boundedBucket struct {
	cache.InterQueryValueCacheBucket
}

// Insert implements [cache.InterQueryValueCacheBucket].
func (b boundedBucket) Insert(key ast.Value, value any) int {
	if text := len(key.String()); text > keptSize || text+sizeOf(value) > keptSize {
		return 0
	}
	return b.InterQueryValueCacheBucket.Insert(key, value)
}

// sizeOf returns what a value takes that may be much larger than its text: a
// pattern with counts, such as .{1000}.
func sizeOf(value any) int {
	pattern, ok := value.(*regexp.Regexp)
	if !ok {
		return 0
	}
	parsed, err := syntax.Parse(pattern.String(), syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	const instruction = 40
	return instruction * len(program.Inst)
}
