package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// The servers that are measured.
const (
	serverNull       = "null"
	serverTransport  = "transport"
	serverFloor      = "floor"
	serverFloorMints = "floor-mints"
	serverDecides    = "decides"
	serverMints      = "mints"
	serverService    = "service"
)

// usage is what a process has used since it began.
type usage struct {
	CPU     time.Duration
	Objects uint64
	Bytes   uint64
	// RSS is the most memory that it ever had, in KiB.
	RSS int64
}

// serve is a server's process. It says what it has used whenever it is asked,
// by a line on standard input, and ends with that.
func serve(name, dir string) error {
	w, err := readWorld(filepath.Join(dir, worldFile))
	if err != nil {
		return err
	}
	server, finish, err := newServer(name, w, dir)
	if err != nil {
		return err
	}
	defer finish()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
	if err != nil {
		return err
	}
	stop, err := profile(os.Getenv(profileVariable))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = report()
	server.Stop()
	return errors.Join(err, <-served, stop())
}

// profileVariable names the file that a server writes its CPU profile to.
const profileVariable = "BENCH_PROFILE"

func profile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, pprof.StartCPUProfile(file)
}

func report() error {
	out := json.NewEncoder(os.Stdout)
	asked := bufio.NewScanner(os.Stdin)
	for {
		u, err := used()
		if err != nil {
			return err
		}
		if err := out.Encode(u); err != nil {
			return err
		}
		if !asked.Scan() {
			return asked.Err()
		}
	}
}

func used() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		CPU:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Objects: m.Mallocs, Bytes: m.TotalAlloc, RSS: r.Maxrss,
	}, nil
}

// newServer returns a server, and what it does at its end.
func newServer(name string, w *world, dir string) (server *grpc.Server, finish func(), err error) {
	var checks authv3.AuthorizationServer
	finish = func() {}
	switch name {
	case serverNull:
		checks = null{}
	case serverTransport:
		server := grpc.NewServer(extauthz.ServerOptions()...)
		wire.Register(server, transport{})
		return server, finish, nil
	case serverFloor:
		checks = newFloor(w, false)
	case serverFloorMints:
		checks = newFloor(w, true)
	case serverDecides, serverMints, serverService:
		return newChancery(name, w, dir)
	default:
		err = fmt.Errorf("no server is named %q", name)
	}
	if err != nil {
		return nil, nil, err
	}
	server = grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, checks)
	return server, finish, nil
}

// newChancery returns Chancery's own, as an agent runs it but for GOGC, in which
// all servers are alike: with its log, which has each denial, its metrics, the
// decision log on disk, and decisions that can be explained.
func newChancery(name string, w *world, dir string) (server *grpc.Server, finish func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	logger, metrics := slog.New(slog.NewJSONHandler(file, nil)), prometheus.NewRegistry()
	sink, err := audit.NewFile(audit.FileConfig{Path: filepath.Join(dir, name+".jsonl"), Logger: logger})
	if err != nil {
		return nil, nil, err
	}
	log, err := audit.NewDecisionLog(audit.DecisionLogConfig{Sink: sink, Logger: logger, Registerer: metrics, Agent: name})
	if err != nil {
		return nil, nil, err
	}
	keeper := decisions.New(decisions.Config{Log: log, Ring: audit.NewRing(0, 0)})
	checks, err := extauthz.New(extauthz.Config{
		Record: keeper.Record, Logger: logger, Registerer: metrics,
		Signer: func() *passport.Signer { return w.signer },
	})
	if err != nil {
		return nil, nil, err
	}
	state, err := w.state(name)
	if err != nil {
		return nil, nil, err
	}
	checks.SetState(state)
	server = grpc.NewServer(extauthz.ServerOptions()...)
	checks.Register(server)
	return server, log.Start(), nil
}

func (w *world) state(name string) (*extauthz.State, error) {
	policy := w.gatewayPolicy()
	switch name {
	case serverDecides:
		policy.Minting = nil
	case serverService:
		policy = servicePolicy()
	}
	rules, err := extauthz.Compile(policy)
	if err != nil {
		return nil, err
	}
	jwks, err := w.jwks()
	if err != nil {
		return nil, err
	}
	passportKeys, err := json.Marshal(w.passportKeys())
	if err != nil {
		return nil, err
	}
	return rules.With(extauthz.Keys{
		Providers: []*chancerypb.Provider{{
			Name: provider, Issuer: issuer, Jwks: jwks, UsableUntil: timestamppb.New(time.Now().Add(time.Hour)),
		}},
		Accounts:  []*chancerypb.Accounts{{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{}}}},
		Passports: []*chancerypb.PassportKeys{{Gateway: "public", SpiffeId: gatewayID, Jwks: passportKeys}},
		Trust:     trust{},

		Revocations: new(revocation.Index),
	})
}

func (w *world) gatewayPolicy() *chancerypb.Policy {
	token := &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{{AccessToken: provider}}, Tenant: true}
	return &chancerypb.Policy{
		Name: "gateway/public", TrustDomain: domain, Minting: &chancerypb.Minting{Lifetime: durationpb.New(time.Minute)},
		Providers: []*chancerypb.Provider{{
			Name: provider, Issuer: issuer, Audiences: []string{audience}, Claims: &chancerypb.ClaimMapping{Tenant: "tenant"},
		}},
		Routes: []*chancerypb.RoutePolicy{
			{Name: "read-order", Method: "GET", Path: "/orders/{id}", Authentication: token, Allow: `'sales' in user.groups`},
			{Name: "create-order", Method: "POST", Path: "/orders", Authentication: token, Allow: `'sales-admin' in user.groups`},
		},
	}
}

func servicePolicy() *chancerypb.Policy {
	return &chancerypb.Policy{
		Name: "service/orders", TrustDomain: domain, Gateways: []string{"public"},
		Routes: []*chancerypb.RoutePolicy{
			{
				Name: "read-order", Method: "GET", Path: "/orders/{id}", Callers: []string{gatewayID},
				Allow: `'sales' in user.groups && tenant == 'acme' && caller.name == 'public'`,
			},
			{
				Name: "create-order", Method: "POST", Path: "/orders", Callers: []string{gatewayID},
				Allow: `'sales-admin' in user.groups && tenant == 'acme'`,
			},
		},
	}
}

// trust knows the one authority there is, and nothing revoked.
type trust struct{}

func (trust) IsRevoked([sha256.Size]byte) bool { return false }
func (trust) HasAuthority(id string) bool      { return id == authorityID() }
