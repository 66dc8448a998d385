// Package mesh holds the demo shop's documents, a model of how documents read.
package mesh

import "embed"

// Documents are the files beside this one. They say where the gateway listens
// and where the issuer is, [Gateway] and [Issuer], for whoever puts the two
// elsewhere.
//
//go:embed *.yaml
var Documents embed.FS

// The addresses that stand in the documents.
const (
	Gateway = "127.0.0.1:8080"
	Issuer  = "127.0.0.1:9000"
)
