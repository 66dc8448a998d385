package credential

import "strings"

// Bearer returns the token of the Authorization header whose lines are given
// (RFC 6750 section 2.1). There must be exactly one line with one credential:
// of two, somebody else might read the other.
func Bearer(lines []string) (string, error) {
	switch len(lines) {
	case 0:
		return "", Missing
	case 1:
	default:
		return "", Ambiguous
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	switch {
	case strings.Contains(lines[0], ","):
		return "", Ambiguous
	case !strings.EqualFold(scheme, "Bearer"):
		return "", Unsupported
	case token == "":
		return "", Malformed
	}
	return token, nil
}
