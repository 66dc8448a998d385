package mesh

import (
	"fmt"
	"strings"
)

// maxCandidates bounds how long a fault is thought about.
const maxCandidates = 1000

// didYouMean returns `: did you mean "…"?` with the candidate that s most
// likely stands for, or nothing.
func didYouMean(s string, candidates []string) string {
	if len(candidates) > maxCandidates {
		return ""
	}
	if best := closest(s, candidates); best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ""
}

// closest returns the candidate that is nearest to s, if one in three letters
// or fewer are wrong.
func closest(s string, candidates []string) string {
	best, least := "", 1+max(1, len(s)/3)
	for _, candidate := range candidates {
		if d := editDistance(strings.ToLower(s), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete, replace or swap with their
// neighbour (optimal string alignment) until a is b.
func editDistance(a, b string) int {
	const bound = 64
	if len(a) > bound || len(b) > bound {
		return bound
	}
	var before, previous []int
	current := make([]int, len(b)+1)
	for j := range current {
		current[j] = j
	}
	for i := range len(a) {
		before, previous, current = previous, current, make([]int, len(b)+1)
		current[0] = i + 1
		for j := range len(b) {
			replace := previous[j]
			if a[i] != b[j] {
				replace++
			}
			current[j+1] = min(replace, previous[j+1]+1, current[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				current[j+1] = min(current[j+1], before[j-1]+1)
			}
		}
	}
	return current[len(b)]
}

// oneOf returns `"a", "b" or "c"`.
func oneOf(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = fmt.Sprintf("%q", word)
	}
	last := len(quoted) - 1
	if last < 1 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
