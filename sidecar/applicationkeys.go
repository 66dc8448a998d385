package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// applicationKeys is where the application beside a sidecar finds the public keys of
// the Passports that its service takes, as [passport.OpenFile] reads them.
type applicationKeys struct {
	path    string
	log     *slog.Logger
	written []byte
}

// update brings the file up to date. The agent itself does not need it, so a
// disk that fails is loud and stops nothing.
func (f *applicationKeys) update(gateways []*chancerypb.PassportKeys) {
	if err := f.write(gateways); err != nil {
		f.log.Error("passport keys for the application not written", "path", f.path, "err", err)
	}
}

// write leaves out a gateway whose keys cannot be read: its Passports are then
// refused.
func (f *applicationKeys) write(gateways []*chancerypb.PassportKeys) error {
	all := passport.KeySet{}
	var faults []error
	for _, g := range gateways {
		keys, err := passport.ParseKeySet(g.GetJwks(), g.GetSpiffeId())
		if err != nil {
			faults = append(faults, err)
			continue
		}
		maps.Copy(all, keys)
	}
	text, err := json.Marshal(all)
	if err == nil && !bytes.Equal(text, f.written) {
		// Public keys, for an application that may run as another user.
		if err = atomicfile.Write(f.path, text, 0o644); err == nil {
			f.written = text
		}
	}
	return errors.Join(append(faults, err)...)
}
