package demo

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := newReport(&out, false)
	r.line("GET /a", "200", "200", nil)
	r.line("GET /b", "404", "200", errors.Join(errors.New("not 404"), errors.New("reached it")))
	r.line("GET /c", "200", "", errors.New("no answer"))
	if err := r.summary(); err == nil {
		t.Error("two failures are no error")
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"✓ GET /a 200 200",
		"✗ GET /b 404 200: not 404; reached it",
		"✗ GET /c 200 no answer",
		"1 passed, 2 failed",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestColumnsAreAligned(t *testing.T) {
	t.Parallel()
	for _, chapter := range chapters {
		for _, s := range chapter.scenes {
			if got := len([]rune(s.sends)); got > sendsWidth {
				t.Errorf("%q is %d wide", s.sends, got)
			}
			if got := len([]rune(s.expects)); got > expectsWidth {
				t.Errorf("%q is %d wide", s.expects, got)
			}
		}
	}
}

func TestChangedIsAnotherToken(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"header.claimsAAAA.signature", "header.claimsBBBB.signature"} {
		got := changed(token)
		if got == token || len(got) != len(token) || strings.Count(got, ".") != 2 {
			t.Errorf("%s became %s", token, got)
		}
	}
}
