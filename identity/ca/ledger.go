package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// ledgerFile has one line per certificate and per revocation: the CRC-32 of
// the rest in hex, a space, and the entry in JSON.
const ledgerFile = "ledger"

// entry is one line of the ledger; exactly one field is set.
type entry struct {
	Issued  *Certificate `json:"issued,omitempty"`
	Revoked *revocation  `json:"revoked,omitempty"`
}

// revocation revokes certificates, all or none.
type revocation struct {
	Serials []string  `json:"serials"`
	At      time.Time `json:"at"`
	Reason  string    `json:"reason,omitempty"`
}

func (e entry) line() []byte {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and times that were checked
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(data), data)
}

func parseEntry(line []byte) (entry, error) {
	var e entry
	sum, data, ok := bytes.Cut(line, []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(data)) {
		return e, errors.New("its checksum is wrong")
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, err
	}
	if (e.Issued == nil) == (e.Revoked == nil) {
		return e, errors.New("it is of no known kind")
	}
	return e, nil
}

// openLedger reads the ledger; only the first start of a CA may find none.
func openLedger(cfg Config, first bool) (*ledger, *certificates, error) {
	path := filepath.Join(cfg.Dir, ledgerFile)
	data, err := identity.ReadPrivate(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && first:
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%s is missing, and with it what was revoked: restore it from a backup, or revoke by hand: an empty file there starts anew", path)
	case err != nil:
		return nil, nil, err
	case first && len(data) > 0:
		return nil, nil, fmt.Errorf("%s is there but %s is not: restore that from a backup", path, stateFile)
	}
	certs, good, err := replay(data, cfg.TrustDomain)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if good < len(data) {
		cfg.Logger.Warn("ledger ends in the middle of a line that was never reported as written: line dropped", "path", path, "bytes", len(data)-good)
	}
	l, err := newLedger(cfg.disk, path, int64(good), bytes.Count(data[:good], []byte("\n")))
	return l, certs, err
}

// replay reads entries and returns how many bytes are whole lines. What comes
// after the last line end was never reported as written. Anything else that
// cannot be read may have been a revocation, so it is an error.
func replay(data []byte, trustDomain string) (*certificates, int, error) {
	certs := newCertificates()
	good := 0
	for n := 1; ; n++ {
		end := bytes.IndexByte(data[good:], '\n')
		if end < 0 {
			return certs, good, nil
		}
		e, err := parseEntry(data[good : good+end])
		if err == nil {
			err = certs.apply(e, trustDomain)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("line %d cannot be read, and may be a revocation: %w; restore the file from a backup", n, err)
		}
		good += end + 1
	}
}

// apply does what an entry says.
func (cs *certificates) apply(e entry, trustDomain string) error {
	if e.Revoked != nil {
		cs.revoke(e.Revoked.Serials, e.Revoked.At, e.Revoked.Reason)
		return nil
	}
	if err := e.Issued.parseID(trustDomain); err != nil {
		return err
	}
	cs.add(*e.Issued)
	return nil
}

// lines returns the ledger that is as short as can be.
func (cs *certificates) lines() []byte {
	var data []byte
	for _, c := range cs.list(func(*Certificate) bool { return true }) {
		data = append(data, entry{Issued: &c}.line()...)
	}
	return data
}
