// Package attacks tests the whole edge against what has broken systems like
// this one: a real Envoy with the configuration that documents come to, the
// decision point that decides by the same documents, and a service behind.
//
// Each attack has an id, P for paths, H for headers, F for framing, and so on.
// coverage_test.go names the tests that cover each, here or elsewhere, or says
// why there is none. Whatever is sent, four things are looked at: the status that
// the client got, that a service saw nothing of what was refused, that whatever
// says there who the user is came from us and names the right one, and that each
// decision is one record without a secret.
package attacks
