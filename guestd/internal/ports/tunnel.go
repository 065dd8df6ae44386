// Package ports reaches the servers that listen inside the sandbox, also those that only
// listen on its loopback.
package ports

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"warren.dev/guestd/internal/pull"
)

const (
	protocol = "warren-tunnel"
	// dialTimeout: loopback answers at once, unless a listener's queue is full.
	dialTimeout = 3 * time.Second
	// bufferBytes is one read of a tunnel.
	bufferBytes = 128 << 10
	// maxTunnels bounds descriptors: two for each tunnel.
	maxTunnels = 4096
)

var loopbacks = []string{"127.0.0.1", "::1"}

// Tunnel joins an upgraded connection to a port of this sandbox.
type Tunnel struct {
	own     map[int]bool // ports of the daemon itself
	buffers *pull.Pool
	places  chan struct{}
}

// New returns a tunnel that refuses to lead back to the daemon's own ports.
func New(own ...int) *Tunnel {
	t := &Tunnel{own: map[int]bool{}, buffers: pull.NewPool(bufferBytes), places: make(chan struct{}, maxTunnels)}
	for _, port := range own {
		t.own[port] = true
	}
	return t
}

// ServeHTTP answers GET ?port=N with 101 and then carries raw bytes both ways.
func (t *Tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.Atoi(r.URL.Query().Get("port"))
	switch {
	case err != nil || port < 1 || port > 65535:
		refuse(w, http.StatusBadRequest, "cannot read 'port'; give a number from 1 to 65535")
		return
	case t.own[port]:
		refuse(w, http.StatusBadRequest, "cannot tunnel to the daemon itself; send it plain requests")
		return
	case !strings.EqualFold(r.Header.Get("Upgrade"), protocol):
		refuse(w, http.StatusBadRequest, "cannot tunnel without 'Upgrade: "+protocol+"'")
		return
	}
	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	default:
		refuse(w, http.StatusTooManyRequests, "cannot open another tunnel: "+strconv.Itoa(maxTunnels)+" are open; close some first")
		return
	}
	server, err := dial(port)
	if err != nil {
		refuse(w, http.StatusBadGateway, "port is not open")
		return
	}
	defer server.Close()
	t.join(w, server)
}

func dial(port int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	var failed error
	for _, host := range loopbacks {
		conn, err := dialer.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// join takes the client's connection over and returns when both directions have ended.
func (t *Tunnel) join(w http.ResponseWriter, server *net.TCPConn) {
	taken, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "cannot take this connection over; use HTTP/1.1")
		return
	}
	defer taken.Close()
	client, ok := taken.(*net.TCPConn)
	if !ok || client.SetDeadline(time.Time{}) != nil {
		return
	}
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return
	}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
	if _, err := io.WriteString(client, switching); err != nil {
		return
	}
	if _, err := server.Write(early); err != nil {
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { t.carry(client, server) })
	directions.Go(func() { t.carry(server, client) })
	directions.Wait()
}

// carry passes an end of stream on as such. An error ends both directions.
func (t *Tunnel) carry(from, to *net.TCPConn) {
	err := t.buffers.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		from.Close()
		to.Close()
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": status, "message": message})
}
