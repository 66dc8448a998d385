// Package mesh holds the demo shop's documents, a model of how documents read.
package mesh

import "embed"

// Documents are the files beside this one. They say where the gateways listen
// and where the issuer is, [Public], [Partners] and [Issuer], for whoever puts
// them elsewhere.
//
//go:embed *.yaml
var Documents embed.FS

// The addresses that stand in the documents.
const (
	Public   = "127.0.0.1:8443"
	Partners = "127.0.0.1:8444"
	Issuer   = "127.0.0.1:9000"
)
