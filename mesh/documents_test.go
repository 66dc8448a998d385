package mesh_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/mesh"
)

const leastMesh = "kind: Mesh\nname: shop\ntrustDomain: shop.example\n"

var orders = mesh.DocumentID{Kind: mesh.KindService, Name: "orders"}

func TestDocumentHash(t *testing.T) {
	t.Parallel()
	hash := func(text string) string {
		document := mesh.Parse("a.yaml", []byte(text)).Get(orders)
		if document == nil {
			t.Fatalf("no %s in %q", orders, text)
		}
		return document.Hash
	}
	const written = "kind: Service\nname: orders\ntier: process\nuses: [a, b]\n"
	for name, same := range map[string]string{
		"comments": "# Why.\n" + written + "# End.\n",
		"layout":   "kind: 'Service'\nname: orders\ntier: \"process\"\nuses:\n  - a\n  - b\n",
		"order":    "uses: [a, b]\ntier: process\nname: orders\nkind: Service\n",
		"defaults": written + "mtls: strict\n",
	} {
		if hash(same) != hash(written) {
			t.Errorf("%s change the hash", name)
		}
	}
	for name, other := range map[string]string{
		"a value":            strings.Replace(written, "process", "system", 1),
		"the order of lists": strings.Replace(written, "[a, b]", "[b, a]", 1),
		"a key":              written + "callers: [x]\n",
		"an empty list":      written + "callers: []\n",
	} {
		if hash(other) == hash(written) {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

// What is written of a document says the same as what was read.
func TestDocumentYAML(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"block style":      "kind: Service\nname: orders\ntier: process\nuses:\n  - a\n  - b\n",
		"flow style":       "{kind: Service, name: orders, routes: [{name: a, match: {path: \"/a/{id}/**\"}, allow: \"'a' in user.groups && !('b: #c' in user.groups)\"}]}",
		"literals":         "kind: Service\nname: orders\nroutes:\n  - match: {path: /a}\n    allow: |\n      'a' in user.groups ||\n        tenant == \"x\"\n\n    timeout: 1m30s\n",
		"folded":           "kind: Service\nname: orders\nroutes:\n  - match: {path: /a}\n    allow: >-\n      true ||\n      false\n",
		"comments":         "# Head.\nkind: Service # line\n# between\nname: orders\n# End.\n",
		"words that trick": "kind: Service\nname: \"orders\"\nuses: [\"true\", \"1e3\", \"null\", \"~\"]\n",
	} {
		before := mesh.Parse("a.yaml", []byte("# Of the file.\n---\n"+text)).Get(orders)
		if before == nil {
			t.Errorf("%s: no %s in %q", name, orders, text)
			continue
		}
		written, err := before.YAML()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		after := mesh.Parse("b.yaml", written).Get(orders)
		if after == nil || after.Hash != before.Hash {
			t.Errorf("%s: written as\n%s", name, written)
		}
	}
}

// A bad document can be taken out, or an older one put in its place.
func TestDocumentsWith(t *testing.T) {
	t.Parallel()
	good := mesh.Parse("a.yaml", []byte(leastMesh+"---\nkind: Service\nname: orders\ntier: process\n"))
	bad := mesh.Parse("a.yaml", []byte(leastMesh+"---\nkind: Service\nname: orders\nteir: process\n"))
	if _, err := bad.Compile(mesh.Options{}); err == nil {
		t.Fatal("the bad document compiles")
	}
	if m := compile(t, bad.Without(orders)); len(m.Services) != 0 {
		t.Errorf("services without the bad document: %v", m.Services)
	}
	if m := compile(t, bad.With(good.Get(orders))); m.Service("orders").Tier != mesh.TierProcess {
		t.Errorf("services with the good document: %v", m.Services)
	}
	if bad.Get(orders).Hash == good.Get(orders).Hash || bad.Hash() == good.Hash() {
		t.Error("the hashes are the same")
	}
	if bad.With(good.Get(orders)).Hash() != good.Hash() {
		t.Error("the hash does not tell what was put in place")
	}
	if _, err := bad.Compile(mesh.Options{}); err == nil {
		t.Error("With or Without changed the set that it was called on")
	}
	if all := (mesh.Documents{}).With(good.Get(orders)).All(); len(all) != 1 || all[0].ID != orders {
		t.Errorf("the empty set with one is %v", all)
	}
}

func TestReadDir(t *testing.T) {
	t.Parallel()
	t.Run("tells files by name and nature", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.yaml"), "kind: Service\nname: a\n")
		write(t, filepath.Join(dir, "b.yml"), "kind: Service\nname: b\n")
		for _, name := range []string{".a.yaml", "a.yaml~", "a.yaml.swp", "4913", "c.json"} {
			write(t, filepath.Join(dir, name), "kind: Service\nname: wrong\n")
		}
		if err := os.Mkdir(filepath.Join(dir, "d.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("a.yaml", filepath.Join(dir, "l.yaml")); err != nil {
			t.Fatal(err)
		}
		documents, err := mesh.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range documents.All() {
			got = append(got, d.ID.String()+" "+strings.TrimPrefix(d.Position.String(), dir))
		}
		if diff := cmp.Diff([]string{"Service/a /a.yaml:1:1", "Service/b /b.yml:1:1"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("refuses a directory that is not there", func(t *testing.T) {
		t.Parallel()
		_, err := mesh.ReadDir(filepath.Join(t.TempDir(), "gone"))
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("refuses a link to nothing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.Symlink("gone", filepath.Join(dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.ReadDir(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("refuses a file that is too large", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.yaml"), strings.Repeat("#\n", 1<<19)+"#")
		if _, err := mesh.ReadDir(dir); err == nil || !strings.HasSuffix(err.Error(), "a.yaml is larger than 1048576 bytes: split it") {
			t.Errorf("error %v", err)
		}
	})
}

func TestMeshLookups(t *testing.T) {
	t.Parallel()
	text := leastMesh + "---\nkind: Gateway\nname: private\nprofile: private\nlisten: 127.0.0.1:8443\n"
	services := []string{"orders", "o", "inventory", "a-b", "ab", "a", "orders-2", "orders2"}
	for _, name := range services {
		text += "---\nkind: Service\nname: " + name + "\n"
	}
	m := compile(t, mesh.Parse("a.yaml", []byte(text)))
	for _, name := range services {
		if s := m.Service(name); s == nil || s.Name != name || m.Gateway(name) != nil {
			t.Errorf("service %s is found as %v", name, s)
		}
	}
	if m.Service("private") != nil || m.Service("order") != nil || m.Service("") != nil || m.Gateway("private") != m.Gateways[0] {
		t.Errorf("lookups in %v", m)
	}
}

// What an alias stands for is never expanded, however often.
func TestAliasBomb(t *testing.T) {
	t.Parallel()
	bomb := "kind: Service\nname: orders\na: &a [x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 100) + "]\n"
	}
	_, err := mesh.Parse("a.yaml", []byte(bomb)).Compile(mesh.Options{})
	if faults, ok := errors.AsType[mesh.Faults](err); !ok || len(faults) > 30 {
		t.Errorf("%d faults", len(faults))
	}
}

func compile(t *testing.T, documents mesh.Documents) *mesh.Mesh {
	t.Helper()
	m, err := documents.Compile(mesh.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/good/*", "testdata/broken/*"} {
		names, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			// What comes before the first file is a comment, what follows a
			// document that ends in a fault.
			f.Add(strings.SplitN(string(data), "--\n", 3)[1])
		}
	}
	f.Add(leastMesh)
	f.Fuzz(func(t *testing.T, text string) {
		documents := mesh.Parse("a.yaml", []byte(text))
		m, err := documents.Compile(options)
		faults, ok := errors.AsType[mesh.Faults](err)
		if (m == nil) != (err != nil) || err != nil && (!ok || len(faults) == 0) {
			t.Fatalf("compiled to %v, %v", m, err)
		}
		for _, fault := range faults {
			if fault.File != "a.yaml" || fault.Message == "" || fault.Line > 2+strings.Count(text, "\n") {
				t.Fatalf("fault %+v", fault)
			}
		}
		if again := mesh.Parse("a.yaml", []byte(text)); again.Hash() != documents.Hash() {
			t.Fatal("the hash differs from one time to the next")
		}
	})
}

// A route's place in the list moves with its neighbours; its id must not come
// to stand for other requests.
func TestRouteIDsStayWithWhatTheyMatch(t *testing.T) {
	t.Parallel()
	ids := func(paths ...string) []string {
		text := "kind: Service\nname: orders\nroutes:\n"
		for _, path := range paths {
			text += "  - {match: {method: GET, path: " + path + `}, allow: "true"}` + "\n"
		}
		m, err := mesh.Parse("a.yaml", []byte("kind: Mesh\nname: shop\ntrustDomain: shop.example\n---\n"+text)).Compile(mesh.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range m.Service("orders").Routes {
			ids = append(ids, r.ID())
		}
		return ids
	}
	before, after := ids("/a", "/admin/x", "/b"), ids("/admin/x", "/b")
	for i, id := range after {
		if at := slices.Index(before, id); at >= 0 && at != i+1 {
			t.Errorf("%q was the id of another route", id)
		}
	}
	if after[0] != "route-0 GET /admin/x" {
		t.Errorf("id %q", after[0])
	}
}

// What looks like a comment and is none, or reads otherwise than it is shown,
// grants nothing.
func TestDisguises(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"NEL": "\u0085", "LS": "\u2028", "PS": "\u2029", "CR": "\r", "RLO": "\u202e", "PDI": "\u2069"} {
		_, err := mesh.Parse("a.yaml", []byte(leastMesh+"# Why é"+end+"trustDomain: other.example\n")).Compile(mesh.Options{})
		if want := "a.yaml:4:8: has "; err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), end) {
			t.Errorf("%s: %v", name, err)
		}
	}
	utf16LE := []byte{0xff, 0xfe}
	for _, c := range leastMesh + "# Why\u2028certificates: {lifetime: 2h}\n" {
		utf16LE = binary.LittleEndian.AppendUint16(utf16LE, uint16(c))
	}
	for want, text := range map[string][]byte{
		"a.yaml:1:1: is not UTF-8: save it in that encoding": utf16LE,
		"a.yaml:4:3: is not UTF-8: save it in that encoding": []byte(leastMesh + "# \xff\n"),
	} {
		if _, err := mesh.Parse("a.yaml", text).Compile(mesh.Options{}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, same := range []string{strings.ReplaceAll(leastMesh, "\n", "\r\n"), leastMesh + "# é \"\\u2028\" \u200f\n"} {
		compile(t, mesh.Parse("a.yaml", []byte(same)))
	}
}
