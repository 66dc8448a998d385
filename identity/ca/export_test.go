package ca

import (
	"errors"
	"os"
)

// OnDisk returns a configuration whose CA writes through d, and compacts its
// ledger whenever it can.
func OnDisk(cfg Config, d *BrittleDisk) Config {
	cfg.disk, cfg.compactAbove = d, -1000
	return cfg
}

// Guessable returns a configuration whose key costs little to derive.
func Guessable(cfg Config) Config {
	cfg.scryptLogN = 4
	return cfg
}

// ErrCrash is what a [BrittleDisk] answers in the end.
var ErrCrash = errors.New("power is gone")

// BrittleDisk does so many operations, and the next one in part: nothing of
// it, half, or all but the answer. After that the power is gone, and with it
// as much of what was not synced.
type BrittleDisk struct {
	Left int
	Part float64
	// Spare: only this operation fails, not those after it.
	Spare bool

	file *brittleFile
}

// do runs an operation, or what is still done of it.
func (d *BrittleDisk) do(whole func() error, part func(share float64) error) error {
	d.Left--
	switch {
	case d.Left >= 0 || d.Spare && d.Left < -1:
		return whole()
	case d.Left < -1:
		return ErrCrash
	case d.Part == 1:
		_ = whole()
	default:
		_ = part(d.Part)
	}
	if d.file != nil && !d.Spare {
		d.file.lose(d.Part)
	}
	return ErrCrash
}

func nothing(float64) error { return nil }

func (d *BrittleDisk) write(path string, data []byte) error {
	return d.do(func() error { return osDisk{}.write(path, data) }, nothing)
}

func (d *BrittleDisk) openAppend(path string, size int64) (f appendFile, err error) {
	var real appendFile
	err = d.do(func() (err error) { real, err = osDisk{}.openAppend(path, size); return err }, nothing)
	if err != nil {
		return nil, err
	}
	d.file = &brittleFile{appendFile: real, disk: d, path: path, size: size, synced: size}
	return d.file, nil
}

type brittleFile struct {
	appendFile
	disk         *BrittleDisk
	path         string
	size, synced int64
}

func (f *brittleFile) Write(data []byte) (int, error) {
	err := f.disk.do(func() error { return f.write(data) },
		func(share float64) error { return f.write(data[:int(share*float64(len(data)))]) })
	return len(data), err
}

func (f *brittleFile) write(data []byte) error {
	n, err := f.appendFile.Write(data)
	f.size += int64(n)
	return err
}

func (f *brittleFile) Sync() error {
	return f.disk.do(func() error { f.synced = f.size; return f.appendFile.Sync() }, nothing)
}

// lose leaves a share of what was not synced.
func (f *brittleFile) lose(share float64) {
	_ = os.Truncate(f.path, f.synced+int64(share*float64(f.size-f.synced)))
}
