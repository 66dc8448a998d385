package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
)

// maxAdminRequest bounds what an operator can ask at once.
const maxAdminRequest = 64 << 10

// adminError is an error with the status that it is answered with.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

// invalidf says what is wrong with a request.
func invalidf(format string, args ...any) error {
	return &adminError{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

// notFoundf says that what a request names is not there.
func notFoundf(format string, args ...any) error {
	return &adminError{status: http.StatusNotFound, text: fmt.Sprintf(format, args...)}
}

// adminFailure is the body of an answer that is an error.
type adminFailure struct {
	Error string `json:"error"`
	// Step is what has to wait.
	Step *StepStatus `json:"step,omitempty"`
}

// asks answers a request that has no body.
func asks[A any](answer func() (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		a, err := answer()
		writeAnswer(w, a, err)
	}
}

// orders answers a request that has a body, for the operator by.
func orders[Q, A any](act func(ctx context.Context, q Q, by string) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminRequest))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&q); err != nil {
			writeAnswer(w, nil, invalidf("request is not valid: %v", err))
			return
		}
		a, err := act(r.Context(), q, operator(r.Context()))
		writeAnswer(w, a, err)
	}
}

func writeAnswer(w http.ResponseWriter, a any, err error) {
	if err == nil {
		writeJSON(w, a)
		return
	}
	failure := adminFailure{Error: err.Error()}
	status := http.StatusConflict
	if waiting, ok := errors.AsType[*WaitingError](err); ok {
		failure.Step = &waiting.Step
	} else if known, ok := errors.AsType[*adminError](err); ok {
		status = known.status
	} else if errors.Is(err, errNoAuthority) {
		status = http.StatusServiceUnavailable
	} else if errors.Is(err, ca.ErrUnknown) {
		status = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(failure) // as with writeJSON
}

// operatorKey is of the context's value that says who is at the other end of the
// admin socket.
type operatorKey struct{}

// withOperator notes which user a connection is of.
func withOperator(ctx context.Context, c net.Conn) context.Context {
	if unix, ok := c.(*net.UnixConn); ok {
		if process, err := identity.PeerProcess(unix); err == nil {
			return context.WithValue(ctx, operatorKey{}, fmt.Sprintf("uid %d", process.Uid))
		}
	}
	return ctx
}

func operator(ctx context.Context) string {
	if by, ok := ctx.Value(operatorKey{}).(string); ok {
		return by
	}
	return "unknown"
}
