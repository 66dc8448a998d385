package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// record is what is kept of a token.
type record struct {
	Token
	Hash [sha256.Size]byte // of the secret
	Key  [sha256.Size]byte // that it is bound to, once used
}

// recordJSON is a record in the file.
type recordJSON struct {
	ID       string    `json:"id"`
	Workload string    `json:"workload"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Used     time.Time `json:"used,omitzero"`
	Lineage  string    `json:"lineage,omitempty"`
	Hash     string    `json:"secret_sha256"`
	Key      string    `json:"key_sha256,omitempty"`
}

func (r record) json() recordJSON {
	j := recordJSON{
		ID: r.ID, Workload: r.Workload.String(), Created: r.Created, Expires: r.Expires, Used: r.Used, Lineage: r.Lineage,
		Hash: hex.EncodeToString(r.Hash[:]),
	}
	if !r.Used.IsZero() {
		j.Key = hex.EncodeToString(r.Key[:])
	}
	return j
}

func (j recordJSON) record() (r record, err error) {
	r.Token = Token{ID: j.ID, Created: j.Created, Expires: j.Expires, Used: j.Used, Lineage: j.Lineage}
	if r.Workload, err = identity.ParseWorkload(j.Workload); err != nil {
		return record{}, err
	}
	hash, err := hex.DecodeString(j.Hash)
	if err != nil || copy(r.Hash[:], hash) != sha256.Size {
		return record{}, errors.New("it has no hash of its secret")
	}
	key, err := hex.DecodeString(j.Key)
	if err != nil || (copy(r.Key[:], key) == sha256.Size) == r.Used.IsZero() {
		return record{}, errors.New("it is used without a key, or the other way round")
	}
	return r, nil
}

func readTokens(path string) (map[string]record, error) {
	tokens := map[string]record{}
	data, err := identity.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return tokens, nil
	}
	if err != nil {
		return nil, err
	}
	var file []recordJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	for _, j := range file {
		r, err := j.record()
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", j.ID, err)
		}
		tokens[j.ID] = r
	}
	return tokens, nil
}

func writeTokens(path string, tokens map[string]record) error {
	file := make([]recordJSON, 0, len(tokens))
	for _, r := range tokens {
		file = append(file, r.json())
	}
	data, err := json.Marshal(file)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}
