package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// runToken asks the issuer for a token and writes it as a header line, which
// curl reads by -H @FILE: nobody sees it in a process list.
func runToken(ctx context.Context, flags *flag.FlagSet, args []string) error {
	mint := flags.String("mint", "127.0.0.1:9001", "where the issuer mints")
	out := flags.String("out", "", "file to write, 0600 (default standard output)")
	claims := flags.String("claims", "{}", "claims that replace the usual ones, JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !json.Valid([]byte(*claims)) {
		return fmt.Errorf("-claims %q is not JSON", *claims)
	}
	token, err := fetch(ctx, http.MethodPost, "http://"+*mint+"/mint", *claims)
	if err != nil {
		return fmt.Errorf("mint a token: %w", err)
	}
	header := "Authorization: Bearer " + token + "\n"
	if *out == "" {
		_, err = io.WriteString(os.Stdout, header)
		return err
	}
	return os.WriteFile(*out, []byte(header), 0o600)
}

// runHealth is for containers that have neither shell nor curl.
func runHealth(ctx context.Context, flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("usage: shop health URL")
	}
	_, err := fetch(ctx, http.MethodGet, flags.Arg(0), "")
	return err
}

func fetch(ctx context.Context, method, url, body string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode >= 300 {
		return "", fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(data), nil
}
