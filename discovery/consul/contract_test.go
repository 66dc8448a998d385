package consul_test

import (
	"testing"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/consul"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/internal/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c consul.Config, server *api.Config) *consul.Registry {
	t.Helper()
	c.API = server
	r, err := consul.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContractFake(t *testing.T) {
	t.Parallel()
	registrytest.Test(t, func(t *testing.T) (discovery.Registry, registrytest.Directory) {
		t.Helper()
		fake := consultest.NewFake(t)
		return open(t, consul.Config{}, fake.Config()), fake
	})
}

// With fewer connections than services every worker has a share.
func TestContractFakeShared(t *testing.T) {
	t.Parallel()
	registrytest.Test(t, func(t *testing.T) (discovery.Registry, registrytest.Directory) {
		t.Helper()
		fake := consultest.NewFake(t)
		return open(t, consul.Config{MaxConnections: 1}, fake.Config()), fake
	})
}

func TestContractConsul(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	registrytest.Test(t, func(t *testing.T) (discovery.Registry, registrytest.Directory) {
		t.Helper()
		return open(t, consul.Config{}, server.Config()), server
	})
}
