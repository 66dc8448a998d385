// Package model holds package extauthz against a model of it that is small
// enough to be seen to be right.
//
// The model (in the tests of this package) reads documents as structs, and
// credentials as what they were made of: it parses nothing, verifies no
// signature, remembers nothing between two requests, and shares no code with
// extauthz. A generator makes up documents, writes them as YAML does, has them
// compiled as the control plane does, and makes up requests that are right but
// for a fault or two. Whatever the server then answers must be what the model
// says: status, reason, who it was, and each claim of the Passport.
//
//	make differential              a million requests
//	make differential CASES=1000   fewer
//	make differential SEED=7       the ones that a failure named
package model
