package attest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/identity"
)

const (
	// MinTTL is how long a token is good at least.
	MinTTL = 10 * time.Second
	// MaxTTL is how long a token is good at most.
	MaxTTL = 24 * time.Hour
	// maxTokens bounds the file, which is written whole.
	maxTokens = 10_000
	// remembered is how long a token that ended is known, so that the audit
	// can say what it was.
	remembered = time.Hour
)

// Token is a join token without its secret.
type Token struct {
	ID string
	// Workload is who may join with it.
	Workload         identity.ID
	Created, Expires time.Time
	// Used is when an agent joined with it; zero: none did. From then on it is
	// good for that agent's key alone.
	Used time.Time
	// Lineage is the one that its certificates are of, once it was used.
	Lineage string
}

// Tokens are the join tokens of a mesh, kept in a file. They are safe for
// concurrent use by one process.
type Tokens struct {
	path  string
	audit *audit.Log

	mu     sync.Mutex
	tokens map[string]record // replaced, never changed
}

// OpenTokens returns the tokens in the file at path, which is made with the
// first of them. It must be readable by its owner alone.
func OpenTokens(path string, log *audit.Log) (*Tokens, error) {
	tokens, err := readTokens(path)
	if err != nil {
		return nil, fmt.Errorf("open join tokens %s: %w", path, err)
	}
	return &Tokens{path: path, audit: log, tokens: tokens}, nil
}

// Create makes a token for a workload and returns its text, which nobody can
// learn later. Pins are those of the mesh's roots, for the agent to know the
// control plane by.
func (t *Tokens) Create(id identity.ID, ttl time.Duration, pins identity.Pins, by string) (string, Token, error) {
	if _, err := identity.ParseWorkload(id.String()); err != nil {
		return "", Token{}, fmt.Errorf("create join token: %w", err)
	}
	if ttl < MinTTL || ttl > MaxTTL {
		return "", Token{}, fmt.Errorf("create join token: time to live %v is not between %v and %v", ttl, MinTTL, MaxTTL)
	}
	if pins.IsZero() {
		return "", Token{}, errors.New("create join token: there is no root to pin")
	}
	now := time.Now()
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails, see its contract
	text := tokenText{ID: hex.EncodeToString(secret[:idSize]), Secret: secret[idSize:], Pins: pins}
	token := Token{ID: text.ID, Workload: id, Created: now, Expires: now.Add(ttl)}
	err := t.change(func(tokens map[string]record) error {
		maps.DeleteFunc(tokens, func(_ string, r record) bool { return now.After(r.Expires.Add(remembered)) })
		if len(tokens) >= maxTokens {
			return fmt.Errorf("there are %d join tokens already; delete some, or wait until they end", len(tokens))
		}
		tokens[token.ID] = record{Token: token, Hash: sha256.Sum256(text.Secret)}
		return nil
	})
	t.record("join token created", id, by, token.ID, err)
	if err != nil {
		return "", Token{}, fmt.Errorf("create join token: %w", err)
	}
	return text.String(), token, nil
}

// Delete makes a token useless, whether it was used or not.
func (t *Tokens) Delete(id, by string) error {
	var workload identity.ID
	err := t.change(func(tokens map[string]record) error {
		r, ok := tokens[id]
		if !ok {
			return errors.New("there is no such token")
		}
		workload = r.Workload
		delete(tokens, id)
		return nil
	})
	t.record("join token deleted", workload, by, id, err)
	if err != nil {
		return fmt.Errorf("delete join token %q: %w", id, err)
	}
	return nil
}

// DeleteUsed makes those of the used tokens useless that gone says, whether that
// can be written down or not; the error is that it cannot.
func (t *Tokens) DeleteUsed(gone func(Token) bool, by string) error {
	t.mu.Lock()
	left := maps.Clone(t.tokens)
	maps.DeleteFunc(left, func(_ string, r record) bool { return !r.Used.IsZero() && gone(r.Token) })
	var deleted []Token
	for id, r := range t.tokens {
		if _, ok := left[id]; !ok {
			deleted = append(deleted, r.Token)
		}
	}
	var err error
	if len(deleted) > 0 {
		t.tokens = left
		if err = writeTokens(t.path, left); err != nil {
			err = fmt.Errorf("delete join tokens: %w: %w", errDisk, err)
		}
	}
	t.mu.Unlock()
	for _, token := range deleted {
		t.record("join token deleted", token.Workload, by, token.ID, err)
	}
	return err
}

// List returns the tokens that have not ended, the oldest first.
func (t *Tokens) List() []Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var list []Token
	for _, r := range t.tokens {
		if now.Before(r.Expires) {
			list = append(list, r.Token)
		}
	}
	slices.SortFunc(list, func(a, b Token) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Redeem returns the lineage of the certificates that text is good for, if it is
// a token of workload and for key; by is who asks. The first use binds the token
// to its key and lineage, on disk, so that an agent that dies before it has its
// certificate can ask again, and nobody else can; and so that whoever asks again
// and again has no more than one agent.
//
// The error says the same to all, and what to do; the audit log has why.
func (t *Tokens) Redeem(text string, workload identity.ID, key crypto.PublicKey, by string) (lineage string, err error) {
	print, err := fingerprint(key)
	if err != nil {
		return "", err
	}
	parsed, err := parseToken(text)
	if err == nil {
		lineage, err = t.redeem(parsed, workload, print)
	}
	t.record("join token used", workload, by, parsed.ID, err)
	switch {
	case err == nil:
		return lineage, nil
	case errors.Is(err, errDisk):
		return "", errors.New("join token cannot be used now: the control plane cannot write its state; try again")
	}
	return "", fmt.Errorf("join token refused; ask for a new one: chancery token create --%s %s", workload.Role, workload.Name)
}

func (t *Tokens) redeem(text tokenText, workload identity.ID, key [sha256.Size]byte) (lineage string, err error) {
	bound := false
	err = t.change(func(tokens map[string]record) error {
		r, ok := tokens[text.ID]
		if !ok {
			return errors.New("it is unknown")
		}
		if err := r.check(text.Secret, workload, key); err != nil {
			return err
		}
		if bound = !r.Used.IsZero(); bound {
			lineage = r.Lineage
			return errUnchanged
		}
		lineage = newLineage()
		r.Used, r.Key, r.Lineage = time.Now(), key, lineage
		tokens[text.ID] = r
		return nil
	})
	if bound {
		err = nil
	}
	return lineage, err
}

// newLineage returns a name that no other lineage has.
func newLineage() string {
	var name [20]byte
	_, _ = rand.Read(name[:]) // never fails, see its contract
	return hex.EncodeToString(name[:])
}

// check says why a token cannot be used.
func (r record) check(secret []byte, workload identity.ID, key [sha256.Size]byte) error {
	hash := sha256.Sum256(secret)
	switch {
	case subtle.ConstantTimeCompare(hash[:], r.Hash[:]) != 1:
		return errors.New("its secret is wrong")
	case !time.Now().Before(r.Expires):
		return fmt.Errorf("it expired at %s", r.Expires.UTC().Format(time.RFC3339))
	case r.Workload != workload:
		return fmt.Errorf("it is for %s", r.Workload)
	case !r.Used.IsZero() && r.Key != key:
		return fmt.Errorf("it was used with another key at %s", r.Used.UTC().Format(time.RFC3339))
	}
	return nil
}

var (
	// errUnchanged ends a change that is none.
	errUnchanged = errors.New("unchanged")
	errDisk      = errors.New("not written")
)

// change makes what f does to the tokens durable, or undone.
func (t *Tokens) change(f func(map[string]record) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(t.tokens)
	if err := f(next); err != nil {
		return err
	}
	if err := writeTokens(t.path, next); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	t.tokens = next
	return nil
}

func (t *Tokens) record(event string, workload identity.ID, by, token string, err error) {
	e := audit.Event{
		Event: event, Subject: workload.String(), By: by, Outcome: audit.Done,
		Details: map[string]string{"token": token},
	}
	if err != nil {
		e.Outcome, e.Reason = audit.Refused, err.Error()
	}
	if errors.Is(err, errDisk) {
		e.Outcome = audit.Failed
	}
	t.audit.Record(e)
}
