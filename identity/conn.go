package identity

import (
	"crypto/tls"
	"sync"
	"time"
)

// conn is a connection with an end.
type conn struct {
	*tls.Conn
	once   sync.Once
	timer  *time.Timer
	closed func(*conn)
}

// until returns c, which closes itself at end. closed, if any, hears when that
// or another has closed it.
func until(c *tls.Conn, end time.Time, closed func(*conn)) *conn {
	served := &conn{Conn: c, closed: closed}
	served.timer = time.AfterFunc(time.Until(end), func() { _ = served.Close() })
	return served
}

// Close implements net.Conn. It does not wait for a peer that takes nothing
// any more, as [tls.Conn] would to say good-bye.
func (c *conn) Close() error {
	err := c.NetConn().Close()
	c.once.Do(func() {
		c.timer.Stop()
		if c.closed != nil {
			c.closed(c)
		}
	})
	return err
}
