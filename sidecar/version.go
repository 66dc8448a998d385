package sidecar

import (
	"fmt"
	"regexp"
	"strconv"
)

// fixedPatch is, per minor release line 1.x, the first patch release with the
// security fixes of 2026. Lines above have them from the start.
var fixedPatch = map[int]int{36: 13, 37: 11, 38: 8, 39: 6}

// firstFixedLine is the first 1.x release line that had them from the start.
const firstFixedLine = 40

var envoyVersion = regexp.MustCompile(`\b(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-dev)?\b`)

// CheckEnvoyVersion judges an Envoy by what `envoy --version` prints, or by a
// bare version: releases that lack the security fixes of 2026 are refused, and
// so is what names no version.
func CheckEnvoyVersion(text string) error {
	m := envoyVersion.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("%.80q names no Envoy version", text)
	}
	major, minor, patch := number(m[1]), number(m[2]), number(m[3])
	// 1.39.6-dev is what came before 1.39.6.
	if m[4] != "" {
		patch--
	}
	fixed, known := fixedPatch[minor]
	switch {
	case major > 1, major == 1 && minor > firstFixedLine,
		major == 1 && minor == firstFixedLine && patch >= 0,
		major == 1 && known && patch >= fixed:
		return nil
	}
	return fmt.Errorf("envoy %s lacks the security fixes of 2026: use 1.36.13, 1.37.11, 1.38.8, 1.39.6 or later of these lines, or 1.40", m[0])
}

// number parses digits that a regular expression has bounded.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
