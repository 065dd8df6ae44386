package server

import (
	"net/http"

	"warren.dev/guestd/gen/filesystem/filesystemconnect"
	"warren.dev/guestd/gen/process/processconnect"
)

// access says who may call a route.
type access int

const (
	token   access = iota // the access token, once one was set
	open                  // everyone, or the handler decides for itself
	control               // the control token, once one was set
)

type route struct {
	method, path string
	access       access
	handler      http.HandlerFunc
}

// plainRoutes is every route that is not a procedure of a service.
func (s *server) plainRoutes() []route {
	return []route{
		{"GET", "/health", open, s.health},
		{"GET", "/files", open, s.Files.ServeFiles}, // a signature may stand in for the token
		{"HEAD", "/files", open, s.Files.ServeFiles},
		{"POST", "/files", open, s.Files.ServeFiles},
		{"POST", "/files/compose", token, s.Files.ServeCompose},
		{"GET", "/envs", token, s.envs},
		{"GET", "/metrics", token, s.metrics},
		{"POST", "/init", open, s.init}, // its token rules are its own
		{"GET", "/warren/tunnel", control, s.Tunnel.ServeHTTP},
		{"GET", "/warren/logs", control, s.logs},
		{"POST", "/warren/envs", control, s.keepEnvs},
		{"POST", "/warren/free", control, s.free},
		{"POST", "/warren/copy", control, s.Build.ServeCopy},
		{"POST", "/warren/settle", control, s.Build.ServeSettle},
		{"GET", "/warren/tree", control, s.Build.ServeTree},
	}
}

var processProcedures = []string{
	processconnect.ProcessListProcedure,
	processconnect.ProcessStartProcedure,
	processconnect.ProcessConnectProcedure,
	processconnect.ProcessUpdateProcedure,
	processconnect.ProcessStreamInputProcedure,
	processconnect.ProcessSendInputProcedure,
	processconnect.ProcessSendSignalProcedure,
	processconnect.ProcessCloseStdinProcedure,
}

var filesystemProcedures = []string{
	filesystemconnect.FilesystemStatProcedure,
	filesystemconnect.FilesystemMakeDirProcedure,
	filesystemconnect.FilesystemMoveProcedure,
	filesystemconnect.FilesystemListDirProcedure,
	filesystemconnect.FilesystemRemoveProcedure,
	filesystemconnect.FilesystemWatchDirProcedure,
	filesystemconnect.FilesystemCreateWatcherProcedure,
	filesystemconnect.FilesystemGetWatcherEventsProcedure,
	filesystemconnect.FilesystemRemoveWatcherProcedure,
}
