// Command guestd is the daemon inside each sandbox: PID 1 of its processes and the other
// end of what the platform and its clients ask for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"warren.dev/guestd/internal/account"
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
	"warren.dev/guestd/internal/reap"
	"warren.dev/guestd/internal/server"
	"warren.dev/guestd/internal/state"
)

// version is set by the build.
var version = "0.0.0"

const (
	defaultPort = 49983
	// maxThreadsAtOnce: one request at a time is the rule, so more only costs memory.
	maxThreadsAtOnce = 4
	// shutdownGrace is what commands get to end by themselves. Runtimes give about ten seconds.
	shutdownGrace = 3 * time.Second
)

type options struct {
	listen, etc, run, passwd, group string
	warren, keep                    string
	maxProcesses                    uint64
	version                         bool
}

func main() {
	opts := parseFlags()
	if opts.version {
		fmt.Printf("guestd %s (wire %s)\n", version, state.WireVersion)
		return
	}
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxThreadsAtOnce))
	if err := run(opts); err != nil {
		fmt.Fprintln(os.Stderr, "guestd:", err)
		os.Exit(1)
	}
}

func parseFlags() options {
	var opts options
	flag.StringVar(&opts.listen, "listen", fmt.Sprintf(":%d", defaultPort), "address to serve on")
	flag.StringVar(&opts.etc, "etc", "/etc", "folder for hostname, hosts, resolv.conf and machine-id")
	flag.StringVar(&opts.run, "run-dir", "/run/e2b", "folder for the files that mark a sandbox")
	flag.StringVar(&opts.warren, "warren-dir", "/run/warren", "folder for the file that tells copies apart")
	flag.StringVar(&opts.keep, "keep-dir", "/var/lib/guestd", "folder for what has to outlive a pause")
	flag.StringVar(&opts.passwd, "passwd", "/etc/passwd", "file of users")
	flag.StringVar(&opts.group, "group", "/etc/group", "file of groups")
	flag.Uint64Var(&opts.maxProcesses, "max-processes", 0,
		"most processes and threads of one user; 0 keeps the limit as it is")
	flag.BoolVar(&opts.version, "version", false, "print the version and end")
	flag.Parse()
	return opts
}

func run(opts options) error {
	ending := endings()

	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return fmt.Errorf("cannot serve: %w; choose another -listen", err)
	}
	reaper := reap.New()
	processes, guard, handler := assemble(opts, reaper, listener.Addr().(*net.TCPAddr).Port)
	handler.Handler = whenQuiet(handler.Handler, shrink)
	failed := make(chan error, 1)
	go func() { failed <- handler.Serve(listener) }()
	keepThreads(spareThreads)
	if opts.maxProcesses > 0 {
		if err := limitProcesses(opts.maxProcesses); err != nil {
			return err
		}
	}
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	go guard.Watch(watching)
	fmt.Fprintf(os.Stderr, "guestd %s serves on %s\n", version, listener.Addr())

	select {
	case err := <-failed:
		return fmt.Errorf("cannot go on serving: %w", err)
	case <-ending:
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGTERM) // also what commands have left in the background
	}
	processes.Shutdown(ctx)
	if err := handler.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func assemble(opts options, reaper *reap.Reaper, port int) (*process.Service, *pressure.Guard, *http.Server) {
	st := state.New()
	book := account.New(opts.passwd, opts.group)
	log := journal.New(time.Now)
	writer := identity.NewWriter(opts.etc, opts.run)
	if os.Getpid() == 1 {
		writer.SetHostname = func(name string) error { return syscall.Sethostname([]byte(name)) }
	}
	if err := writer.Mark(); err != nil {
		log.Warn("init", err.Error(), nil)
	}
	processes := process.New(st, book, reaper, log)
	guard := pressure.New(processes, log)
	processes.UseRelief(guard.Relieve)
	return processes, guard, server.New(server.Parts{
		State:    st,
		Process:  processes,
		Files:    files.New(st, book, log),
		Tunnel:   ports.New(defaultPort, port),
		Journal:  log,
		Metrics:  metrics.New("", "/", time.Now),
		Identity: writer,
		Keepsake: keepsake.New(opts.keep),
		AfterFork: &afterfork.Notice{
			Hooks: filepath.Join(opts.etc, "warren", "after-fork.d"), Run: opts.warren, Reaper: reaper, Journal: log,
		},
		Guard: guard,
		Build: build.New(book, opts.run, opts.warren, opts.keep),
	})
}
