package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/mesh"
)

// A rule that reads what is never there would deny for ever: that is a fault of
// the document, where it stands.
func TestCheckFaultsWhatIsNeverThere(t *testing.T) {
	t.Parallel()
	gateway := mesh.Expression{AtGateway: true, Params: []string{"id"}, Data: []string{"limits"}}
	service := mesh.Expression{Params: []string{"id"}, Data: []string{"limits"}}
	withBody := service
	withBody.HasBody = true
	one := func(line, column int, message string) []mesh.ExpressionFault {
		return []mesh.ExpressionFault{{Line: line, Column: column, Message: message}}
	}
	const (
		noPassport = "there is no Passport yet at a gateway, which makes it: decide by it in services"
		noCaller   = "there is no caller at a gateway, only in services: a client that has a certificate is user.id"
		noBody     = "there is no body: write up to which size it is shown, such as body: 64KiB, in the route"
		noData     = "no data set is listed: write data: [NAME] in the document"
	)
	for _, row := range []struct {
		where  mesh.Expression
		source string
		want   []mesh.ExpressionFault
	}{
		{gateway, `passport.bound.order == params.id`, one(1, 1, noPassport)},
		{gateway, `!has(passport.bound)`, one(1, 6, noPassport)},
		{gateway, `caller.name == 'web'`, one(1, 1, noCaller)},
		{gateway, `client.owner == 'a' && client.plan == 'b'`, nil},
		{service, `passport.bound.order == params.id && caller.name == 'web'`, nil},
		{service, `client.plan == 'pro'`, one(1, 1, "client.plan is known at gateways alone: decide by it there")},
		{service, "user.id == 'a' &&\n  request.body.amount < 100", one(2, 3, noBody)},
		{service, `has(request.body)`, one(1, 5, noBody)},
		{withBody, `request.body.amount < 100`, nil},
		{service, `data.limits.amount > 1 && data['limits'].amount > 1`, nil},
		{service, `data.limit.amount > 1`, one(1, 1, `data set "limit" is not listed: add it to data in the document`)},
		{service, `data['li-mit'].amount > 1`, one(1, 1, `data set "li-mit" is not listed: add it to data in the document`)},
		{service, `data[tenant].amount > 1`, nil},
		{mesh.Expression{}, `data[tenant].amount > 1`, one(1, 1, noData)},
		{mesh.Expression{}, `data.limits.amount > 1`, one(1, 1, noData)},
		{service, `params.id == params.order`, one(1, 14, "{order} is not in match.path: write it there")},
		{service, `params['order'] == 'a' || size(params) > 1`, one(1, 1, "{order} is not in match.path: write it there")},
		{gateway, `user.groups.exists(caller, caller == 'a')`, nil},
		{gateway, `caller.id == 'x' && passport.bound.a == 'x'`, append(one(1, 1, noCaller), one(1, 21, noPassport)...)},
	} {
		row.where.Source = row.source
		got := policy.Check(row.where)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.source, diff)
		}
	}
	gateway.Source = "string(request.body.order)"
	if diff := cmp.Diff(one(1, 8, noBody), policy.CheckBinding(gateway)); diff != "" {
		t.Errorf("binding (-want +got):\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	in := full()
	in.User.ID = "ali\u202ece"
	in.User.Groups = []string{strings.Repeat("ö", 400)}
	in.Tenant = ""
	in.Now = in.Now.Add(250 * time.Millisecond).In(time.FixedZone("", 3600))
	in.Request.Method = "Zürich" + strings.Repeat("é", 300)
	program, faults := policy.Compile(`
		user.id == 'x' && user.groups == ['x'] && tenant == 'x' && request.host == 'x' && request.method == 'x' &&
		request.headers['authorization'] == ['x'] && request.query.token == ['x'] && request.target == 'x' &&
		request.body.card == 'x' && params['id'] == 'x' && passport.bound.order == 'x' && now == user.auth_time &&
		user.id == 'y' && data.limits.amount == 1 && user.groups.exists(g, g == 'x') && caller.name == 'x' && client.plan == 'x'`)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	got := program.Values(in)
	want := []policy.Value{
		{Path: "user.id", Text: `"ali\u202ece"`},
		{Path: "user.groups", Text: `["` + strings.Repeat("ö", 127) + "…"},
		{Path: "tenant", Text: "(missing)"},
		{Path: "request.host", Text: `"api.test"`},
		{Path: "request.method", Text: `"Zürich` + strings.Repeat("é", 124) + "…"},
		{Path: "request.headers.authorization", Text: "(not kept)"},
		{Path: "request.query.token", Text: "(not kept)"},
		{Path: "request.target", Text: "(not kept)"},
		{Path: "request.body.card", Text: "(not kept)"},
		{Path: "params.id", Text: `"42"`},
		{Path: "passport.bound.order", Text: `"42"`},
		{Path: "now", Text: "2026-11-22T10:00:00.25Z"},
		{Path: "user.auth_time", Text: "2026-11-22T09:50:00Z"},
		{Path: "caller.name", Text: `"public"`},
		{Path: "client.plan", Text: `"pro"`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Whatever the whole of a request is read by, none of it is kept.
	for _, source := range []string{`request.headers.exists(h, h == 'x')`, `size(request.body) > 9`, `[request].exists(r, r.target == 'x')`} {
		program, faults := policy.Compile(source)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for _, v := range program.Values(full()) {
			if v.Text != "(not kept)" {
				t.Errorf("%s: %v", source, v)
			}
		}
	}
	many := "true"
	for i := range 40 {
		many += " && params.p" + strings.Repeat("x", i) + " == 'x'"
	}
	if program, faults = policy.Compile(many); len(faults) > 0 || len(program.Values(full())) != 16 {
		t.Errorf("%d values, %v", len(program.Values(full())), faults)
	}
}

// CEL's errors have values in them, which may be secrets; ours do not.
func TestErrorsTellNoValues(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`int(request.headers['s'][0]) == 1`:                     "type conversion error",
		`data.limits[request.headers['s'][0]] == 1`:             "no such key",
		`timestamp(request.headers['s'][0]) == now`:             "a function cannot take the value that it is given",
		`ip(request.headers['s'][0]) == ip('10.0.0.1')`:         "a function cannot take the value that it is given",
		`cidr(request.headers['s'][0]).containsIP('10.0.0.1')`:  "a function cannot take the value that it is given",
		`now.getHours(request.headers['s'][0]) > 1`:             "a function cannot take the value that it is given",
		`request.headers[request.headers['s'][0]] == ['x']`:     "no such key",
		`request.body[request.headers['s'][0]] == 1`:            "no such key",
		`request.body.note > 1`:                                 "no such overload",
		`request.headers['s'][3] == 'x'`:                        "index out of bounds",
		`request.body.amount / (request.body.amount - 99) == 1`: "division by zero",
		`request.body.amount * 9223372036854775807 == 1`:        "overflow",
	} {
		in := full()
		in.Request.Headers = func() map[string][]string { return map[string][]string{"s": {"hunter2"}} }
		program, faults := policy.Compile(source)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		allowed, err := program.Eval(t.Context(), in)
		if allowed || err == nil || err.Error() != "evaluate rule: "+want {
			t.Errorf("%s = %v, %v, want %s", source, allowed, err, want)
		}
	}
}
