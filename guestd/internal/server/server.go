// Package server is the HTTP face of the daemon: which routes there are, who may call
// them, and the plain endpoints that belong to no service.
package server

import (
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem/filesystemconnect"
	"warren.dev/guestd/gen/process/processconnect"
	"warren.dev/guestd/internal/afterfork"
	"warren.dev/guestd/internal/build"
	"warren.dev/guestd/internal/files"
	"warren.dev/guestd/internal/identity"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/keepsake"
	"warren.dev/guestd/internal/metrics"
	"warren.dev/guestd/internal/ports"
	"warren.dev/guestd/internal/pressure"
	"warren.dev/guestd/internal/process"
	"warren.dev/guestd/internal/state"
)

const (
	// maxMessageBytes bounds one RPC message: large input goes through /files.
	maxMessageBytes = 64 << 20
	maxHeaderBytes  = 64 << 10
	// headerTimeout is how long a client may take over its request line and headers.
	headerTimeout = 30 * time.Second
	// idleTimeout keeps pooled connections of the clients alive; it is longer than the ten
	// minutes for which load balancers usually do.
	idleTimeout = 640 * time.Second
)

// Parts is what the server puts behind its routes.
type Parts struct {
	State    *state.State
	Process  *process.Service
	Files    *files.Service
	Tunnel   *ports.Tunnel
	Journal  *journal.Journal
	Metrics  *metrics.Meter
	Identity *identity.Writer
	Keepsake *keepsake.Box
	// AfterFork tells the processes of a copy what they are.
	AfterFork *afterfork.Notice
	Guard     *pressure.Guard
	Build     *build.Service
}

type server struct {
	Parts
	initializing sync.Mutex // one /init at a time: they write the same files
	routes       map[string]map[string]route
}

// New returns the HTTP server, ready for a listener.
func New(parts Parts) *http.Server {
	return &http.Server{
		Handler:           Handler(parts),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// Handler is the whole of it: CORS, then the token, then the routes.
func Handler(parts Parts) http.Handler {
	s := &server{Parts: parts}
	s.routes = s.table()
	return allowAnyOrigin(s)
}

func (s *server) table() map[string]map[string]route {
	table := map[string]map[string]route{}
	for _, r := range s.plainRoutes() {
		if table[r.path] == nil {
			table[r.path] = map[string]route{}
		}
		table[r.path][r.method] = r
	}
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessageBytes),
		connect.WithCompression("gzip", nil, nil), // compressed frames are not part of the wire
	}
	_, processes := processconnect.NewProcessHandler(s.Process, options...)
	_, entries := filesystemconnect.NewFilesystemHandler(s.Files, options...)
	for _, procedure := range processProcedures {
		table[procedure] = map[string]route{http.MethodPost: {http.MethodPost, procedure, token, adjustTimeout(processes).ServeHTTP}}
	}
	for _, procedure := range filesystemProcedures {
		table[procedure] = map[string]route{http.MethodPost: {http.MethodPost, procedure, token, adjustTimeout(entries).ServeHTTP}}
	}
	return table
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	methods, known := s.routes[r.URL.Path]
	target, allowed := methods[r.Method]
	access := token // an unknown route tells nothing to those without a token
	if allowed {
		access = target.access
	}
	if !s.admit(w, r, access) {
		return
	}
	switch {
	case !known:
		refuse(w, http.StatusNotFound, "cannot find "+r.URL.Path+"; check the path")
	case !allowed:
		names := make([]string, 0, len(methods))
		for name := range methods {
			names = append(names, name)
		}
		w.Header().Set("Allow", strings.Join(names, ", "))
		refuse(w, http.StatusMethodNotAllowed, "cannot "+r.Method+" "+r.URL.Path+"; see the Allow header")
	default:
		target.handler(w, r)
	}
}
