package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/extauthz"
)

// requestFlags say what a request that has not happened is like; those that curl
// has mean the same here.
type requestFlags struct {
	method, data, ip    string
	headers             []string
	caller, certificate string
	at                  string
	introspect          bool
}

func (f *requestFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.method, "request", "X", "", "method (default GET, or POST with --data)")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, `header, such as "Accept: */*"; @FILE reads lines of them, @- from standard input. Put secrets there, since others can read arguments`)
	flags.StringVarP(&f.data, "data", "d", "", "body; @FILE reads it")
	flags.StringVar(&f.ip, "ip", "192.0.2.1", "address that it comes from")
	flags.StringVar(&f.caller, "caller", "", "at a service: who calls, such as gateway/public, or a SPIFFE ID; nobody for a connection in the clear")
	flags.StringVar(&f.certificate, "client-certificate", "", "at a gateway: file of the client's certificate, in PEM")
	flags.StringVar(&f.at, "at", "", "when it is made, such as 2026-11-03T22:00:00Z (default now)")
	flags.BoolVar(&f.introspect, "introspect", false, "let identity providers be asked about its tokens")
}

// hypothesis returns the request that the flags speak of.
func (f *requestFlags) hypothesis(stdin io.Reader, url string) (*extauthz.Hypothesis, error) {
	h := &extauthz.Hypothesis{Method: f.method, IP: f.ip, Caller: f.caller, Introspect: f.introspect}
	if h.Host, h.Target = splitURL(url); strings.Contains(h.Host, "@") {
		return nil, errors.New("the URL has a user before its host: write Authorization: Basic … into a file, and -H @FILE")
	}
	if h.Method == "" {
		h.Method = "GET"
		if f.data != "" {
			h.Method = "POST"
		}
	}
	var err error
	if f.at != "" {
		if h.Time, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, fmt.Errorf("--at %q: write a date and time such as 2026-11-03T22:00:00Z", f.at)
		}
	}
	if h.Body, err = readData(f.data); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	if f.certificate != "" {
		pem, err := os.ReadFile(f.certificate)
		if err != nil {
			return nil, fmt.Errorf("--client-certificate: %w", err)
		}
		h.Certificate = string(pem)
	}
	for _, flag := range f.headers {
		lines, err := readHeaders(stdin, flag)
		if err != nil {
			return nil, fmt.Errorf("--header: %w", err)
		}
		h.Headers = append(h.Headers, lines...)
	}
	return h, nil
}

// splitURL returns the host and the path with the query, as they are written:
// what a client would send, so of a URL no fragment. What has no scheme is a path.
func splitURL(url string) (host, target string) {
	scheme, rest, absolute := strings.Cut(url, "://")
	if !absolute || strings.ContainsAny(scheme, "/?#") {
		return "", url
	}
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		return rest, "/"
	}
	if host, target = rest[:end], rest[end:]; target[0] == '?' {
		target = "/" + target // RFC 9112 section 3.2.1
	}
	return host, target
}

func readData(flag string) ([]byte, error) {
	if path, ok := strings.CutPrefix(flag, "@"); ok {
		return os.ReadFile(path)
	}
	return []byte(flag), nil
}

// readHeaders reads a header, or the lines of a file of them. What it says of one
// that is wrong does not repeat it: it may be a secret.
func readHeaders(stdin io.Reader, flag string) (headers []extauthz.HypotheticalHeader, err error) {
	text := []byte(flag)
	switch path, isFile := strings.CutPrefix(flag, "@"); {
	case isFile && path == "-":
		text, err = io.ReadAll(stdin)
	case isFile:
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case name == "" && !ok: // an empty line
		case !ok || strings.TrimSpace(name) != name || name == "":
			return nil, errors.New("write a name, a colon and a value, such as Accept: */*")
		default:
			headers = append(headers, extauthz.HypotheticalHeader{Name: name, Value: strings.TrimSpace(value)})
		}
	}
	return headers, nil
}
