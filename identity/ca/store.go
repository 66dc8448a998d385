package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// stateFile holds roots, authorities and their private keys, together, so that
// they cannot part.
const stateFile = "authorities.json"

// The state in its file.
type (
	stateRecord struct {
		TrustDomain string            `json:"trust_domain"`
		Root        *rootRecord       `json:"root,omitempty"`
		Authorities []authorityRecord `json:"authorities"`
	}
	rootRecord struct {
		Certificate []byte `json:"certificate"`
		Key         []byte `json:"key"`
	}
	authorityRecord struct {
		Certificate []byte    `json:"certificate"`
		Root        []byte    `json:"root"`
		Key         []byte    `json:"key,omitempty"`
		External    bool      `json:"external,omitempty"`
		State       State     `json:"state"`
		Since       time.Time `json:"since"`
		Sequence    uint64    `json:"sequence"`
	}
)

// store keeps the state in its file.
type store struct {
	cfg  Config
	path string
	seal *sealer // nil: not derived yet, or not wanted
}

func newStore(cfg Config) *store {
	return &store{cfg: cfg, path: filepath.Join(cfg.Dir, stateFile)}
}

// encrypted reports whether the state is to be kept encrypted.
func (s *store) encrypted() bool { return len(s.cfg.Key) > 0 }

// read returns the state on disk, nil if there is none yet.
func (s *store) read() (*state, error) {
	data, err := identity.ReadPrivate(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plain, sealed, err := s.open(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path, err)
	}
	var rec stateRecord
	if err := json.Unmarshal(plain, &rec); err != nil {
		return nil, fmt.Errorf("read %s: not a state file", s.path)
	}
	st, err := s.parse(rec)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path, err)
	}
	if !sealed && s.encrypted() {
		return st, s.write(st)
	}
	return st, nil
}

// open returns the content of the file, and whether it was sealed.
func (s *store) open(data []byte) (plain []byte, sealed bool, err error) {
	var box sealedRecord
	if err := json.Unmarshal(data, &box); err != nil {
		return nil, false, errors.New("not a state file")
	}
	if box.Sealed == nil {
		return data, false, nil
	}
	if !s.encrypted() {
		return nil, true, errors.New("it is encrypted: give the passphrase or key file that it was encrypted with")
	}
	if s.seal, err = sealerOf(s.cfg.Key, box); err != nil {
		return nil, true, err
	}
	plain, err = s.seal.open(box)
	return plain, true, err
}

func (s *store) write(st *state) error {
	rec, err := recordOf(st)
	if err != nil {
		return err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if s.encrypted() {
		if data, err = s.sealed(data); err != nil {
			return err
		}
	}
	return s.cfg.disk.write(s.path, append(data, '\n'))
}

func (s *store) sealed(plain []byte) (data []byte, err error) {
	if s.seal == nil {
		if s.seal, err = newSealer(s.cfg.Key, s.cfg.scryptLogN); err != nil {
			return nil, err
		}
	}
	return json.Marshal(s.seal.close(plain))
}

func recordOf(st *state) (stateRecord, error) {
	rec := stateRecord{TrustDomain: st.trustDomain}
	if st.root != nil {
		key, err := x509.MarshalPKCS8PrivateKey(st.root.key)
		if err != nil {
			return rec, err
		}
		rec.Root = &rootRecord{Certificate: st.root.cert.Raw, Key: key}
	}
	for _, i := range st.authorities {
		a := authorityRecord{Certificate: i.cert.Raw, Root: i.root.Raw, External: i.External, State: i.State, Since: i.Since, Sequence: i.Sequence}
		if i.key != nil && !i.External {
			var err error
			if a.Key, err = x509.MarshalPKCS8PrivateKey(i.key); err != nil {
				return rec, err
			}
		}
		rec.Authorities = append(rec.Authorities, a)
	}
	return rec, nil
}

func (s *store) parse(rec stateRecord) (*state, error) {
	if rec.TrustDomain != s.cfg.TrustDomain {
		return nil, fmt.Errorf("it is of trust domain %q, not %q: use another directory", rec.TrustDomain, s.cfg.TrustDomain)
	}
	st := &state{trustDomain: rec.TrustDomain}
	if rec.Root != nil {
		cert, err := x509.ParseCertificate(rec.Root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
		key, err := parseKey(rec.Root.Key, cert)
		if err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
		st.root = &root{cert: cert, key: key}
	}
	for n, a := range rec.Authorities {
		i, err := s.parseAuthority(a)
		if err != nil {
			return nil, fmt.Errorf("authority %d: %w", n, err)
		}
		st.authorities = append(st.authorities, i)
	}
	_, err := st.active()
	return st, err
}

func (s *store) parseAuthority(a authorityRecord) (*issuer, error) {
	cert, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, err
	}
	top, err := x509.ParseCertificate(a.Root)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	switch {
	case a.State == Revoked:
	case a.External:
		if key, err = s.cfg.Supplied.signer(cert); err != nil {
			return nil, fmt.Errorf("%s: %w", hex.EncodeToString(cert.SubjectKeyId), err)
		}
	default:
		if key, err = parseKey(a.Key, cert); err != nil {
			return nil, err
		}
	}
	i := newIssuer(cert, top, key)
	i.State, i.Since, i.Sequence, i.External = a.State, a.Since, a.Sequence, a.External
	return i, nil
}
