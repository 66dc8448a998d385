package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Instance is one instance of a service, as the registry tells of it.
type Instance struct {
	Service, ID string
	// Address is where the application is, Mesh where its sidecar is.
	Address, Mesh netip.AddrPort
	// MTLS says that its sidecar demands mutual TLS, and that nobody is to reach
	// it past that.
	MTLS bool
}

const (
	dialTimeout = time.Second
	// dials is how many instances are tried at once.
	dials = 16
)

// Reach tries, from this host, whether instances can be reached past their
// sidecars, and whether their sidecars demand a certificate.
func Reach(ctx context.Context, instances []Instance) []Finding {
	found := make([][]Finding, len(instances))
	slots := make(chan struct{}, dials)
	var group sync.WaitGroup
	for n, i := range instances {
		if !i.MTLS {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[n] = append(pastSidecar(ctx, i), sidecar(ctx, i)...)
		})
	}
	group.Wait()
	return slices.Concat(found...)
}

func (i Instance) String() string { return i.Service + "/" + i.ID }

// pastSidecar tries the application's own address.
func pastSidecar(ctx context.Context, i Instance) []Finding {
	if !i.Address.IsValid() || i.Address == i.Mesh {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", i.Address.String())
	if err != nil {
		return nil
	}
	_ = conn.Close()
	if i.Address.Addr().IsLoopback() {
		return []Finding{note(i.String(), "give the application a network namespace of its own, if other users work on its host",
			"every process of this host reaches %s past its sidecar", i.Address)}
	}
	return []Finding{problem(i.String(), "have the application listen on 127.0.0.1 alone, or let a firewall keep others from that port",
		"answers at %s, past its sidecar: whoever reaches that is not asked who they are", i.Address)}
}

// sidecar tries to come in without a certificate.
func sidecar(ctx context.Context, i Instance) []Finding {
	if !i.Mesh.IsValid() {
		return []Finding{problem(i.String(), `register it with the tagged address "mesh"`,
			"does not say where its sidecar is: nobody reaches it")}
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", i.Mesh.String())
	if err != nil {
		return []Finding{note(i.String(), "look whether its sidecar runs", "its sidecar at %s cannot be reached from here: %v", i.Mesh, err)}
	}
	defer conn.Close()
	err = refused(ctx, conn)
	if _, clear := errors.AsType[tls.RecordHeaderError](err); clear {
		return []Finding{problem(i.String(), "look at what listens there: it is not a sidecar of this mesh", "%s does not speak TLS", i.Mesh)}
	}
	if err == nil {
		return []Finding{problem(i.String(), "look at what listens there: it is not a sidecar of this mesh",
			"whoever comes to %s without a certificate is let in", i.Mesh)}
	}
	return nil
}

// refused is nil if a client without a certificate is served. With TLS 1.3 the
// client hears of its refusal only when it reads.
func refused(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	client := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // nothing is sent; whom the other side lets in is what is asked
		NextProtos:         []string{"h2", "http/1.1"},
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := client.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := client.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil // it waits for us to speak
	}
	return err
}
