package policy

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// environment declares what rules may name.
var environment = sync.OnceValue(func() *cel.Env {
	registry, err := types.NewRegistry()
	if err != nil {
		panic(err)
	}
	env, err := cel.NewEnv(
		ext.Network(), // it adds types, which our provider does not take
		cel.CustomTypeAdapter(registry), cel.CustomTypeProvider(provider{registry}),
		cel.Variable("user", userType), cel.Variable("client", clientType),
		cel.Variable("caller", callerType), cel.Variable("request", requestType),
		cel.Variable("tenant", cel.StringType), cel.Variable("now", cel.TimestampType),
		cel.Variable("params", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("passport", passportType), cel.Variable("data", cel.MapType(cel.StringType, cel.DynType)),
		cel.ParserExpressionSizeLimit(maxSource), cel.ParserRecursionLimit(maxDepth),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(cel.ValidateRegexLiterals(), literalPatterns{}),
	)
	if err != nil {
		panic(err)
	}
	return env
})

var (
	userType    = cel.ObjectType("chancery.User")
	clientType  = cel.ObjectType("chancery.Client")
	callerType  = cel.ObjectType("chancery.Caller")
	requestType = cel.ObjectType("chancery.Request")

	passportType = cel.ObjectType("chancery.Passport")

	linesType = cel.MapType(cel.StringType, cel.ListType(cel.StringType))
)

// fields are read by hand: what is missing must be an error, and reflection
// would cost more than most rules.
var fields = map[string]map[string]*types.FieldType{
	userType.TypeName(): {
		"id":     field(cel.StringType, func(u *User) any { return text(u.ID) }),
		"groups": field(cel.ListType(cel.StringType), func(u *User) any { return list(u.Groups) }),
		"scopes": field(cel.ListType(cel.StringType), func(u *User) any { return list(u.Scopes) }),
		"acr":    field(cel.StringType, func(u *User) any { return text(u.ACR) }),
		"amr":    field(cel.ListType(cel.StringType), func(u *User) any { return list(u.AMR) }),

		"provider":    field(cel.StringType, func(u *User) any { return text(u.Provider) }),
		"auth_time":   field(cel.TimestampType, func(u *User) any { return moment(u.AuthTime) }),
		"roles":       field(cel.ListType(cel.StringType), once(func(u *User) *memo { return &u.roles }, (*User).readRoles)),
		"permissions": field(cel.ListType(cel.StringType), once(func(u *User) *memo { return &u.permissions }, (*User).readPermissions)),
	},
	clientType.TypeName(): {
		"id":    field(cel.StringType, func(c *Client) any { return text(c.ID) }),
		"owner": field(cel.StringType, func(c *Client) any { return text(c.Owner) }),
		"plan":  field(cel.StringType, func(c *Client) any { return text(c.Plan) }),
	},
	passportType.TypeName(): {
		"bound": field(cel.MapType(cel.StringType, cel.StringType), func(p *Passport) any { return facts(p.Bound) }),
	},
	callerType.TypeName(): {
		"id":   field(cel.StringType, func(c *Caller) any { return text(c.ID) }),
		"role": field(cel.StringType, func(c *Caller) any { return text(c.Role) }),
		"name": field(cel.StringType, func(c *Caller) any { return text(c.Name) }),
	},
	requestType.TypeName(): {
		"method":   field(cel.StringType, func(r *Request) any { return text(r.Method) }),
		"path":     field(cel.StringType, (*Request).readPath),
		"raw_path": field(cel.StringType, func(r *Request) any { return text(r.Path) }),
		"host":     field(cel.StringType, (*Request).readHost),
		"ip":       field(cel.StringType, func(r *Request) any { return text(r.IP) }),
		"headers":  field(linesType, once(func(r *Request) *memo { return &r.headers }, (*Request).readHeaders)),
		"query":    field(linesType, once(func(r *Request) *memo { return &r.query }, (*Request).readQuery)),
		"target":   field(cel.StringType, func(r *Request) any { return text(r.Target) }),
		"body":     field(cel.DynType, once(func(r *Request) *memo { return &r.body }, (*Request).readBody)),
	},
}

var errMissing = errors.New("the request does not have it")

// field makes a field whose value get returns, nil where it is missing.
func field[T any](t *cel.Type, get func(*T) any) *types.FieldType {
	read := func(object any) any {
		if o, ok := object.(*T); ok {
			return get(o)
		}
		return nil
	}
	return &types.FieldType{
		Type:  t,
		IsSet: func(object any) bool { return read(object) != nil },
		GetFrom: func(object any) (any, error) {
			if v := read(object); v != nil {
				return v, nil
			}
			return nil, errMissing
		},
	}
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

func facts(m map[string]string) any {
	if m == nil {
		return nil
	}
	return m
}

func list(l []string) any {
	if l == nil {
		return nil
	}
	return l
}

// provider adds our types to CEL's own.
type provider struct{ types.Provider }

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if _, ok := fields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Provider.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if f, ok := fields[name]; ok {
		return slices.Sorted(maps.Keys(f)), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if f, ok := fields[name]; ok {
		t, ok := f[field]
		return t, ok
	}
	return p.Provider.FindStructFieldType(name, field)
}
