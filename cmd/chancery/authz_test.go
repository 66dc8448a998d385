package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// ask asks an authorization server as Envoy does, and prints the answer: ask
// TARGET METHOD PATH [HEADER=VALUE]...; or for its health: ask TARGET health; or
// for a page: ask URL.
func ask() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if len(os.Args) == 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Args[1], nil)
		check(err)
		resp, err := http.DefaultClient.Do(req)
		check(err)
		defer resp.Body.Close()
		_, err = io.Copy(os.Stdout, resp.Body)
		check(err)
		return
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	if os.Args[2] == "health" {
		resp, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
		check(err)
		fmt.Println(resp.GetStatus())
		return
	}
	request := &authv3.AttributeContext_HttpRequest{Method: os.Args[2], Path: os.Args[3], Headers: map[string]string{}}
	for _, header := range os.Args[4:] {
		name, value, _ := strings.Cut(header, "=")
		request.Headers[name] = value
	}
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{
		Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: request}},
	})
	check(err)
	fmt.Println(resp.GetStatus().GetCode(), int32(resp.GetDeniedResponse().GetStatus().GetCode()),
		resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue(), resp.GetOkResponse().GetHeaders())
}

// pack makes a bundle and signs it: pack FILE MODULE REVISION KEY. The key is
// made where there is none, its public half beside it in KEY.pub.
func pack() {
	file, module, revision, key := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	if _, err := os.Stat(key); err != nil {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		der, err := x509.MarshalPKCS8PrivateKey(private)
		check(err)
		check(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		der, err = x509.MarshalPKIXPublicKey(private.Public())
		check(err)
		check(os.WriteFile(key+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	}
	text, err := os.ReadFile(module)
	check(err)
	parsed, err := ast.ParseModule(module, string(text))
	check(err)
	b := opabundle.Bundle{
		Manifest: opabundle.Manifest{Revision: revision},
		Data:     map[string]any{},
		Modules:  []opabundle.ModuleFile{{URL: module, Path: "/" + module, Raw: text, Parsed: parsed}},
	}
	b.Manifest.Init()
	check(b.GenerateSignature(opabundle.NewSigningConfig(key, "ES256", ""), "k", true))
	f, err := os.Create(file + ".new")
	check(err)
	check(opabundle.NewWriter(f).UseModulePath(true).DisableFormat(true).Write(b))
	check(f.Close())
	check(os.Rename(file+".new", file))
}
