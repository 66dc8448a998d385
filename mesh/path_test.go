package mesh_test

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chancery-mesh/chancery/mesh"
)

var canonical = regexp.MustCompile("^" + mesh.CanonicalPath + "$")

func TestIsCanonicalPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/":                       true,
		"/orders":                 true,
		"/orders/":                true,
		"/pkg.Service/Method":     true,
		"/a/.well-known/...":      true,
		"/admin..":                true,
		"/..a/.a./...b/....":      true,
		"/users/a@b.c":            true,
		"/users/a%40b.c":          true,
		"/t/2026-11-22T10%3A00":   true,
		"/a%20b%22%5B%7C":         true,
		"/gr%C3%B6%C3%9Fe":        true,
		"/%E2%82%AC/%F0%9F%98%80": true,
		"/%EF%BF%BD":              true,

		"":                               false,
		"orders":                         false,
		"*":                              false,
		"//":                             false,
		"//admin":                        false,
		"/public//admin":                 false,
		"/public/":                       true,
		"/public/../admin":               false,
		"/public/./admin":                false,
		"/public/..":                     false,
		"/.":                             false,
		"/public/%2e%2e/admin":           false,
		"/public/%2E%2E/admin":           false,
		"/public/.%2E/admin":             false,
		"/public%2F..%2Fadmin":           false,
		"/public%2f..%2fadmin":           false,
		"/public%5C..%5Cadmin":           false,
		`/public\..\admin`:               false,
		"/admin;x=y":                     false,
		"/public/..;/admin":              false,
		"/admin%3Bx":                     false,
		"/admin#x":                       false,
		"/admin%23x":                     false,
		"/admin?x":                       false,
		"/admin%3Fx":                     false,
		"/%61dmin":                       false,
		"/adm%69n":                       false,
		"/%7Eadmin":                      false,
		"/admin%00":                      false,
		"/admin%09":                      false,
		"/admin%0A":                      false,
		"/admin%7F":                      false,
		"/admin ":                        false,
		"/admin\n":                       false,
		"/%252e%252e/admin":              false,
		"/%c0%ae%c0%ae/admin":            false,
		"/%C0%AE%C0%AE/admin":            false,
		"/%C0%AF":                        false,
		"/%E0%80%AF":                     false,
		"/%ED%A0%80":                     false,
		"/%F4%90%80%80":                  false,
		"/%F5%80%80%80":                  false,
		"/%80":                           false,
		"/%C3":                           false,
		"/%C3%":                          false,
		"/%C3%B":                         false,
		"/%C3x":                          false,
		"/%u002e%u002e/":                 false,
		"/%":                             false,
		"/%4":                            false,
		"/gr\u00f6\u00dfe":               false,
		"/a%c3%b6":                       false,
		"/a\xff":                         false,
		"/a|b":                           false,
		"http://api.test/admin":          false,
		"/" + strings.Repeat("a", 1<<20): true,
	} {
		t.Run(fmt.Sprintf("%.40q", path), func(t *testing.T) {
			t.Parallel()
			if got := mesh.IsCanonicalPath(path); got != want {
				t.Errorf("IsCanonicalPath = %v, want %v", got, want)
			}
			if got := canonical.MatchString(path); got != want {
				t.Errorf("CanonicalPath matches = %v, want %v", got, want)
			}
		})
	}
}

// Every byte, encoded, both ways of writing it.
func TestIsCanonicalPathOfEachByte(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for _, format := range []string{"/admin%%%02X", "/admin%%%02x"} {
			path := fmt.Sprintf(format, c)
			want := c > ' '-1 && c < 0x7F && !strings.ContainsRune(`/\;?#%-._~`, rune(c)) && !isAlphanumeric(c) &&
				path == "/admin"+strings.ToUpper(path[len("/admin"):])
			if got := mesh.IsCanonicalPath(path); got != want {
				t.Errorf("IsCanonicalPath(%q) = %v, want %v", path, got, want)
			}
			if got := canonical.MatchString(path); got != want {
				t.Errorf("CanonicalPath matches %q: %v, want %v", path, got, want)
			}
		}
	}
}

func isAlphanumeric(c int) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func FuzzIsCanonicalPath(f *testing.F) {
	for _, seed := range []string{"/", "/a/..", "/%C3%B6", "/%F0%9F%98%80", "/%2F", "/a%40/", "/%21%24%26%27%28%29%2A%2B%2C%3A%3D%40%20%22", "//", "/...", "/.%2E"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := mesh.IsCanonicalPath(path)
		if got != canonical.MatchString(path) {
			t.Fatalf("IsCanonicalPath(%q) = %v, CanonicalPath disagrees", path, got)
		}
		if !got {
			return
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || !utf8.ValidString(decoded) {
			t.Fatalf("%q decodes to %q, %v", path, decoded, err)
		}
		if strings.Count(decoded, "/") != strings.Count(path, "/") || strings.ContainsAny(decoded, "\\;?#%\x00\n") {
			t.Fatalf("%q decodes to %q", path, decoded)
		}
		if got, want := mesh.NormalPath(path), oneSpelling(decoded); got != want || !mesh.IsCanonicalPath(got) {
			t.Fatalf("NormalPath(%q) = %q, want %q", path, got, want)
		}
		if u, err := url.ParseRequestURI(path); err != nil || u.JoinPath().Path != decoded {
			t.Fatalf("%q is cleaned to %v, %v", path, u, err)
		}
	})
}

// oneSpelling encodes what must be.
func oneSpelling(decoded string) string {
	var b strings.Builder
	for _, c := range []byte(decoded) {
		if isAlphanumeric(int(c)) || strings.IndexByte("/-._~!$&'()*+,:=@", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func BenchmarkIsCanonicalPath(b *testing.B) {
	for b.Loop() {
		mesh.IsCanonicalPath("/service/orders/0b9c7c2e-6c1f-4f3c-9a57-1d2f8a1c0e11/lines")
	}
}
