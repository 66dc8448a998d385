package translate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/golden"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestGolden(t *testing.T) {
	t.Parallel()
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, input golden.Files) golden.Files {
		m, err := mesh.Parse("documents/input.yaml", []byte(input["input.yaml"])).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		output := golden.Files{}
		for _, g := range m.Gateways {
			output["gateway-"+g.Name+".json"] = text(t, translate.Gateway(m, g))
			output["vouch.txt"] += fmt.Sprintf("%s: %s\n", g.Name, strings.Join(translate.MayVouch(g), " "))
		}
		for _, s := range m.Services {
			output["service-"+s.Name+".json"] = text(t, translate.Service(m, s))
		}
		for _, p := range m.Providers {
			output["provider-"+p.Name+".json"] = text(t, translate.Provider(p))
		}
		for name, accounts := range translate.Accounts(m) {
			if proto.Size(accounts.GetApiKeys()) > 0 || accounts.GetApiKeys() == nil {
				output["accounts-"+strings.ReplaceAll(name, "/", "-")+".json"] = text(t, accounts)
			}
		}
		return output
	})
}

// text writes a message always in the same way, which protobuf itself does not.
func text(t *testing.T, m proto.Message) string {
	t.Helper()
	written, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, written, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// Where a rule stands is for people: it changes nothing that is decided.
func TestWithoutPositions(t *testing.T) {
	t.Parallel()
	const documents = "kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\nkind: Service\nname: orders\nroutes:\n- match: {path: /a}\n%s  allow: 'true'\n"
	policies := make([]string, 2)
	for i, comment := range []string{"", "  # why\n"} {
		m, err := mesh.Parse("dir/a.yaml", fmt.Appendf(nil, documents, comment)).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := translate.Service(m, m.Services[0])
		if want := fmt.Sprintf("a.yaml:%d:11", 9+i); p.GetRoutes()[0].GetPosition() != want {
			t.Errorf("position %s, want %s", p.GetRoutes()[0].GetPosition(), want)
		}
		policies[i] = text(t, p.WithoutPositions())
		if p.GetRoutes()[0].GetPosition() == "" {
			t.Error("the policy was changed")
		}
	}
	if policies[0] != policies[1] {
		t.Errorf("%s differs from %s", policies[0], policies[1])
	}
}

// A new key changes one resource of many, and gateways subscribe to all of them.
func TestKeysAreSpread(t *testing.T) {
	t.Parallel()
	accounts := func(n int) map[string]string {
		var b strings.Builder
		b.WriteString("kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\nkind: Client\nname: till\nowner: a\n---\n")
		b.WriteString("kind: Gateway\nname: public\nprofile: private\nlisten: 127.0.0.1:1\nauthenticate: {apiKey: true}\nroutes: [{match: {path: /a}, to: orders}]\n---\nkind: Service\nname: orders\n")
		for i := range n {
			fmt.Fprintf(&b, "---\nkind: APIKey\nname: k%09d\nclient: till\nowner: a\nhash: sha256:%064d\n", i, 0)
		}
		m, err := mesh.Parse("a.yaml", []byte(b.String())).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		texts, names := map[string]string{}, translate.Gateway(m, m.Gateway("public")).GetAccounts()
		for name, part := range translate.Accounts(m) {
			texts[name] = text(t, part)
			if !slices.Contains(names, name) {
				t.Errorf("the gateway does not subscribe to %s", name)
			}
		}
		return texts
	}
	before, after := accounts(1000), accounts(1001)
	var changed []string
	for name := range after {
		if after[name] != before[name] {
			changed = append(changed, name)
		}
		if strings.HasPrefix(name, "apikeys/") && strings.Count(after[name], `"id"`) < 10 {
			t.Errorf("%s has few keys of 1000", name)
		}
	}
	if len(changed) != 1 || len(before) != len(after) || len(after) < 17 {
		t.Errorf("of %d resources, %v changed", len(after), changed)
	}
}
