package process

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

var errTooMany = connect.NewError(connect.CodeResourceExhausted,
	fmt.Errorf("cannot start another process: %d are running; end some first", maxProcesses))

// registry knows the running processes, and for a while those that have ended.
type registry struct {
	mu       sync.Mutex
	byPid    map[uint32]*process
	reserved int        // running, or about to be
	finished []*process // oldest first
	ghosts   uint32
	order    uint64
}

func newRegistry() *registry { return &registry{byPid: map[uint32]*process{}} }

// reserve takes one of the places for running processes; free gives back an unused one.
func (r *registry) reserve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reserved >= maxProcesses {
		return errTooMany
	}
	r.reserved++
	return nil
}

func (r *registry) free() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved--
}

// add makes a process known. A new one takes the pid over from a finished one.
func (r *registry) add(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order++
	p.order = r.order
	r.byPid[p.pid] = p
}

// firstGhost lies above the largest pid that Linux ever gives out (2^22).
const firstGhost = 1<<22 + 1

// ghostPid names a command that could not be run, so that its result has a name.
func (r *registry) ghostPid() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ghosts = (r.ghosts + 1) % (1 << 22)
	return firstGhost + r.ghosts
}

// retire keeps a process that has ended for the time of retention.
func (r *registry) retire(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved--
	p.config = nil // only the list shows it, and it may hold megabytes of arguments
	r.finished = append(r.finished, p)
	if len(r.finished) > maxFinished {
		r.drop(r.finished[0])
	}
	time.AfterFunc(retention, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.drop(p)
	})
}

func (r *registry) drop(p *process) {
	if at := slices.Index(r.finished, p); at >= 0 {
		r.finished = slices.Delete(r.finished, at, at+1)
	}
	if r.byPid[p.pid] == p {
		delete(r.byPid, p.pid)
	}
}

func (r *registry) byID(pid uint32) *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byPid[pid]
}

// find returns a process, running or ended. Of several with one tag it prefers a running
// one, then the newest.
func (r *registry) find(selector *processpb.ProcessSelector) (*process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch by := selector.GetSelector().(type) {
	case *processpb.ProcessSelector_Pid:
		if p, ok := r.byPid[by.Pid]; ok {
			return p, nil
		}
	case *processpb.ProcessSelector_Tag:
		var best *process
		for _, p := range r.byPid {
			if p.tag != nil && *p.tag == by.Tag && (best == nil || better(p, best)) {
				best = p
			}
		}
		if best != nil {
			return best, nil
		}
	default:
		return nil, invalid(errors.New("cannot tell which process is meant; give a pid or a tag"))
	}
	return nil, notFound(selector)
}

func better(a, b *process) bool {
	if a.hasEnded() != b.hasEnded() {
		return b.hasEnded()
	}
	return a.order > b.order
}

// list describes the processes that have not ended, oldest first.
func (r *registry) list() []*processpb.ProcessInfo {
	var infos []*processpb.ProcessInfo
	for _, p := range r.running() {
		r.mu.Lock()
		if p.config != nil {
			infos = append(infos, &processpb.ProcessInfo{Config: p.config, Pid: p.pid, Tag: p.tag})
		}
		r.mu.Unlock()
	}
	return infos
}

// running returns the processes that have not ended, oldest first.
func (r *registry) running() []*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	var live []*process
	for _, p := range r.byPid {
		if !p.hasEnded() {
			live = append(live, p)
		}
	}
	slices.SortFunc(live, func(a, b *process) int { return cmp.Compare(a.order, b.order) })
	return live
}

func notFound(selector *processpb.ProcessSelector) error {
	if by, ok := selector.GetSelector().(*processpb.ProcessSelector_Tag); ok {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("process with tag %s not found", by.Tag))
	}
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("process with pid %d not found", selector.GetPid()))
}
