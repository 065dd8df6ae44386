// Package process is the Process service: it starts commands, carries their input and
// output, and ends them. One file per verb.
package process

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/gen/process/processconnect"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/reap"
	"warren.dev/guestd/internal/state"
)

const (
	// maxProcesses is how many may live at once; the pids limit of a sandbox is far below.
	maxProcesses = 10000
	// retention is how long the result of an ended process can still be asked for.
	retention = 30 * time.Second
	// maxFinished bounds the results kept: each holds up to 96 KiB of output.
	maxFinished = 256
)

// Service implements the generated handler.
type Service struct {
	state    *state.State
	accounts *account.Book
	reaper   *reap.Reaper
	journal  *journal.Journal
	registry *registry
	kills    *oomKills
	// relieve makes room for another process, if something can be ended for it.
	relieve func() bool
}

var _ processconnect.ProcessHandler = (*Service)(nil)

// New returns a service without processes.
func New(st *state.State, accounts *account.Book, reaper *reap.Reaper, log *journal.Journal) *Service {
	return &Service{
		state: st, accounts: accounts, reaper: reaper, journal: log, registry: newRegistry(), kills: newOOMKills(),
		relieve: func() bool { return false },
	}
}

// UseRelief names what is tried when the kernel gives no more processes.
func (s *Service) UseRelief(relieve func() bool) { s.relieve = relieve }

// find returns the running process that a selector names.
func (s *Service) find(selector *processpb.ProcessSelector) (*process, error) {
	found, err := s.registry.find(selector)
	if err != nil {
		return nil, err
	}
	if found.hasEnded() {
		return nil, notFound(selector)
	}
	return found, nil
}

// Shutdown asks every process group to end, waits for them until ctx is done, and then
// forces what is left.
func (s *Service) Shutdown(ctx context.Context) {
	running := s.registry.running()
	for _, p := range running {
		_ = p.terminate() // what cannot be asked is forced below, or is gone
	}
	for _, p := range running {
		select {
		case <-p.output.ended:
		case <-ctx.Done():
			_ = p.kill()
		}
	}
}

type lifetimeKey struct{}

// WithLifetime marks a request whose process must end after limit. The server takes this
// from Connect-Timeout-Ms, which would otherwise end only the stream.
func WithLifetime(r *http.Request, limit time.Duration) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), lifetimeKey{}, limit))
}

func lifetime(ctx context.Context) (time.Duration, bool) {
	limit, ok := ctx.Value(lifetimeKey{}).(time.Duration)
	return limit, ok
}

func invalid(err error) error { return connect.NewError(connect.CodeInvalidArgument, err) }

func internal(err error) error { return connect.NewError(connect.CodeInternal, err) }
