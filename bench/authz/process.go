package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// connections of the load generator to a server.
const connections = 2

// process is a server in a process of its own.
type process struct {
	cmd    *exec.Cmd
	ask    io.WriteCloser
	answer *json.Decoder
	conns  [connections]*grpc.ClientConn
}

// start returns once the server is there.
func (b *bench) start(ctx context.Context, name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, "-serve", name, "-dir", b.dir)}
	p.cmd.Stderr = os.Stderr
	if b.profiles != "" {
		p.cmd.Env = append(os.Environ(), profileVariable+"="+filepath.Join(b.profiles, name+".pprof"))
	}
	if p.ask, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.answer = json.NewDecoder(out)
	var begin usage
	if err := p.answer.Decode(&begin); err != nil {
		return nil, errors.Join(fmt.Errorf("start server %q: %w", name, err), p.close())
	}
	for i := range p.conns {
		p.conns[i], err = grpc.NewClient("unix:"+filepath.Join(b.dir, name),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// used returns what the process has used since it began.
func (p *process) used() (u usage, err error) {
	if _, err = io.WriteString(p.ask, "\n"); err == nil {
		err = p.answer.Decode(&u)
	}
	return u, err
}

// close ends the process, as the end of its input does.
func (p *process) close() error {
	errs := []error{p.ask.Close()}
	for _, conn := range p.conns {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(append(errs, p.cmd.Wait())...)
}
