package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// maxToken bounds a join token, in bytes.
const maxToken = 4 << 10

// tokenProver proves an identity by a join token.
type tokenProver struct {
	*joiner
	token string
}

var _ prover = (*tokenProver)(nil)

// prove implements prover. A token that was refused is not tried again: that
// would only use up attempts.
func (p *tokenProver) prove(ctx context.Context, client chancerypb.AttestationClient, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	resp, err := client.JoinWithToken(ctx, &chancerypb.JoinWithTokenRequest{
		Token: p.token, Workload: p.id.String(), Enroll: req,
	}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.OK:
		return resp, nil
	case codes.Unauthenticated, codes.InvalidArgument:
		p.spent, p.spentReason = p.token, err
	default: // nobody said that the token is bad; the workload's document may yet come
	}
	return nil, fmt.Errorf("join with token: %w", err)
}

// errNoToken says that there is no join token to send, yet.
var errNoToken = errors.New("join token")

// token returns the join token, unless it was refused before.
func (j *joiner) token() (string, error) {
	token := j.config.Token
	if j.config.TokenFile != "" {
		text, err := identity.ReadPrivate(j.config.TokenFile)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf(`%w: no file %q: write the output of "chancery token create" there`, errNoToken, j.config.TokenFile)
		}
		if err != nil {
			return "", fmt.Errorf("join token: %w", err)
		}
		token = string(text)
	}
	token = strings.TrimSpace(token)
	switch {
	case token == "":
		return "", fmt.Errorf("%w: it is empty", errNoToken)
	case len(token) > maxToken || len(strings.Fields(token)) != 1:
		return "", errors.New("join token: it is not one word, as \"chancery token create\" writes it")
	case token == j.spent:
		return "", fmt.Errorf("%w: the last one was refused: %w", errNoToken, j.spentReason)
	}
	return token, nil
}
