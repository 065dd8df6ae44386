package ports

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"warren.dev/guestd/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// echo listens on address and returns what it reads, and the end of it.
func echo(t *testing.T, address string) int {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

// open asks for a tunnel, with early bytes right behind the request.
func open(t *testing.T, query, upgrade, early string, own ...int) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	web := httptest.NewServer(New(own...))
	t.Cleanup(web.Close)
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /warren/tunnel?%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s", query, upgrade, early)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), reader, response
}

func TestBytesGoBothWaysAndTheEndToo(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		port := echo(t, address)
		conn, reader, response := open(t, fmt.Sprintf("port=%d", port), "warren-tunnel", "early ")
		if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != "warren-tunnel" {
			t.Fatalf("got %v", response)
		}
		long := strings.Repeat("0123456789", 100_000)
		go func() {
			_, _ = io.WriteString(conn, long)
			_ = conn.CloseWrite()
		}()
		got, err := io.ReadAll(reader)
		if err != nil || string(got) != "early "+long {
			t.Errorf("%s: %d bytes, %v", address, len(got), err)
		}
	}
}

func TestRefusedTunnels(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := taken.Addr().(*net.TCPAddr).Port
	taken.Close()
	for _, c := range []struct {
		query, upgrade string
		status         int
		text           string
	}{
		{fmt.Sprintf("port=%d", closed), "warren-tunnel", 502, `{"code":502,"message":"port is not open"}`},
		{"port=49983", "warren-tunnel", 400, "daemon itself"},
		{"port=0", "warren-tunnel", 400, "port"},
		{"port=65536", "warren-tunnel", 400, "port"},
		{"port=x", "warren-tunnel", 400, "port"},
		{"", "warren-tunnel", 400, "port"},
		{"port=80", "websocket", 400, "Upgrade: warren-tunnel"},
	} {
		_, _, response := open(t, c.query, c.upgrade, "", 49983)
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != c.status || !strings.Contains(string(body), c.text) {
			t.Errorf("%s: %d %s", c.query, response.StatusCode, body)
		}
	}
}

func TestResetOfOneSideEndsTheOther(t *testing.T) {
	port := echo(t, "127.0.0.1:0")
	conn, _, response := open(t, fmt.Sprintf("port=%d", port), "warren-tunnel", "")
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response.Status)
	}
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close() // the leak check at the end sees a tunnel that stays
}
