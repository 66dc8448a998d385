package identity

import (
	"crypto/tls"
	"sync"
	"time"
)

// conn is a connection with an end.
type conn struct {
	*tls.Conn
	forget func(*conn) // told once, when it closes; may be nil

	mu     sync.Mutex
	closed bool
	timer  *time.Timer
}

// closeAt has c close itself at a moment.
func (c *conn) closeAt(end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.timer = time.AfterFunc(time.Until(end), func() { _ = c.Close() })
	}
}

// Close implements net.Conn. It does not wait for a peer that takes nothing
// any more, as [tls.Conn] would to say good-bye.
func (c *conn) Close() error {
	err := c.NetConn().Close()
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	if first && c.forget != nil {
		c.forget(c)
	}
	return err
}
