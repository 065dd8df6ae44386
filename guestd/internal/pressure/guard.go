// Package pressure ends processes when the sandbox as a whole has run out of something: of
// memory, when the platform says so, and of processes, which it watches itself. A hog loses
// its processes, everything else goes on.
package pressure

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/internal/journal"
)

const (
	// watchPeriod is the time between two counts of all processes.
	watchPeriod = 250 * time.Millisecond
	// restAfterNothing is the time until the next look at a full sandbox that has no bomb in it.
	restAfterNothing = 5 * time.Second
	// slack: forks fail a few processes below the limit when several come at once.
	slack = 16
	// maxPasses bounds the search for those that were being born when all was stopped.
	maxPasses = 5
	// bombShare: a family is no bomb unless it has this part of what the sandbox may have.
	bombShare = 4
	// maxPids is the most that Linux ever gives out.
	maxPids = 1 << 22
	// From these rounds on a call for memory ends whole families, then everything.
	familyRound = 1
	allRound    = 4
)

// Why a process is ended.
const (
	OutOfMemory      = "out of memory"
	TooManyProcesses = "too many processes"
)

// Commands is what was started through the API.
type Commands interface {
	// Runs says whether a pid is that of a running command.
	Runs(pid int) bool
	// Blame is told why a process, the first, is about to be ended, and of its ancestors, group and session.
	Blame(lineage []int, reason string)
}

// Guard chooses what to end, and ends it. One thing at a time.
type Guard struct {
	commands Commands
	journal  *journal.Journal
	mu       sync.Mutex
	table    table
	self     int
	session  int
	rested   time.Time // when to look again
	// kill is the system call, or a test's.
	kill func(pid int, sig syscall.Signal) error
}

// New returns a guard that keeps the number of processes and threads below what one user may
// have. It acts only as the first process of its own PID namespace: anywhere else the table
// shows strangers.
func New(commands Commands, log *journal.Journal) *Guard {
	session, _ := unix.Getsid(0)
	return &Guard{commands: commands, journal: log, self: os.Getpid(), session: session, kill: syscall.Kill}
}

// processLimit is the number of processes and threads that the sandbox may have; 0 for no limit.
func processLimit() int {
	var set unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &set); err != nil || set.Cur > maxPids {
		return 0
	}
	return int(set.Cur)
}

// Victim is a process that was ended for memory.
type Victim struct {
	Pid   int    `json:"pid"`
	Bytes uint64 `json:"bytes"`
}

// Free ends the largest processes until they held need bytes together, and with a command all
// that it has started. Asked again because that was not enough, it ends the largest family, and
// in the end everything but the daemon.
func (g *Guard) Free(need uint64, round int) []Victim {
	if g.self != 1 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.hold()()
	if !g.look() {
		return nil
	}
	chosen := g.forMemory(need, round)
	victims := make([]Victim, 0, len(chosen))
	for _, one := range chosen {
		victims = append(victims, Victim{one.pid, one.rss})
	}
	g.end(chosen, OutOfMemory)
	if len(victims) > 0 {
		g.journal.Warn("pressure", "out of memory: the largest processes were ended", map[string]string{
			"ended": strconv.Itoa(len(victims)),
			"pid":   strconv.Itoa(victims[0].Pid),
			"bytes": strconv.FormatUint(victims[0].Bytes, 10),
		})
	}
	return victims
}

// hold stops everything at once with a single system call, and returns what lets it go on.
// Beside a thousand busy processes each further call may have to wait for its turn, and what
// stands still neither grows nor forks while it is looked at.
func (g *Guard) hold() func() {
	_ = g.kill(-1, syscall.SIGSTOP) // ESRCH: there is nobody
	return func() { _ = g.kill(-1, syscall.SIGCONT) }
}

func (g *Guard) look() bool {
	if err := g.table.read(g.self); err != nil {
		g.journal.Warn("pressure", "cannot list processes: "+err.Error(), nil)
		return false
	}
	return true
}

func (g *Guard) end(chosen []row, reason string) {
	for _, one := range chosen {
		var lineage []int
		for _, ancestor := range g.table.lineage(one, g.self) {
			lineage = append(lineage, ancestor.pid)
		}
		g.commands.Blame(append(lineage, one.group, one.session), reason)
	}
	for _, one := range chosen {
		_ = g.kill(one.pid, syscall.SIGKILL) // it may have ended by itself
	}
}

func (g *Guard) forMemory(need uint64, round int) []row {
	rows := g.table.rows
	if round >= allRound {
		return slices.Clone(rows)
	}
	if round >= familyRound {
		best, _ := g.largest(func(r row) uint64 { return r.rss })
		return g.members(best)
	}
	bySize := slices.SortedFunc(slices.Values(rows), func(a, b row) int { return cmp.Compare(b.rss, a.rss) })
	freed := uint64(0)
	for at, one := range bySize {
		if freed >= need && at > 0 || one.rss == 0 {
			return g.withOrphans(bySize[:at])
		}
		freed += one.rss
	}
	return bySize
}

// withOrphans adds what a command among them has started: it belongs to nobody once that has ended.
func (g *Guard) withOrphans(chosen []row) []row {
	families := map[int]bool{}
	for _, one := range chosen {
		if g.commands.Runs(one.pid) {
			families[g.table.family(one, g.self, g.session)] = true
		}
	}
	whole := slices.Clone(chosen)
	for _, one := range g.table.rows {
		if families[g.table.family(one, g.self, g.session)] && !slices.Contains(chosen, one) {
			whole = append(whole, one)
		}
	}
	return whole
}

// Watch looks after the number of processes until ctx is done.
func (g *Guard) Watch(ctx context.Context) {
	if g.self != 1 {
		return
	}
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.Relieve()
		}
	}
}

// Relieve ends the family that takes most of the processes, if they have come to the limit,
// and says whether it ended any.
func (g *Guard) Relieve() bool {
	limit := processLimit()
	if g.self != 1 || limit == 0 || taskCount() < limit-slack {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Now().Before(g.rested) {
		return false
	}
	defer g.hold()()
	if !g.look() {
		return false
	}
	bomb := g.bomb(g.table.tasks(), limit/bombShare)
	if len(bomb) == 0 {
		g.rested = time.Now().Add(restAfterNothing)
		return false
	}
	g.journal.Warn("pressure", "too many processes: the family that started most of them is ended",
		map[string]string{"limit": strconv.Itoa(limit), "ended": strconv.Itoa(len(bomb))})
	for range maxPasses {
		g.end(bomb, TooManyProcesses)
		g.endGroups(bomb)
		if !g.look() {
			break
		}
		if bomb = g.survivors(bomb); len(bomb) == 0 {
			break
		}
	}
	return true
}

// endGroups reaches by process group who was born while its parent was being stopped.
func (g *Guard) endGroups(members []row) {
	done := map[int]bool{}
	for _, one := range members {
		if one.group > 1 && !done[one.group] {
			done[one.group] = true
			_ = g.kill(-one.group, syscall.SIGKILL) // it may be empty by now
		}
	}
}

// survivors are those of the families of members that are still there.
func (g *Guard) survivors(members []row) []row {
	families := map[int]bool{}
	for _, one := range members {
		families[one.group], families[one.session] = true, true
	}
	delete(families, g.session)
	var left []row
	for _, one := range g.table.rows {
		if families[one.group] || families[one.session] {
			left = append(left, one)
		}
	}
	return left
}

// bomb is the family that has half of all processes and threads, and enough to matter. If none has, it may be
// those together that belong to no command any more. Many small commands are no bomb.
func (g *Guard) bomb(tasks, atLeast int) []row {
	best, size := g.largest(func(r row) uint64 { return uint64(r.tasks) })
	if int(size) >= max(tasks/2, atLeast) {
		return g.members(best)
	}
	var stray []row
	count := 0
	for _, one := range g.table.rows {
		if !g.commands.Runs(g.table.family(one, g.self, g.session)) {
			stray = append(stray, one)
			count += one.tasks
		}
	}
	if count >= max(tasks/2, atLeast) {
		return stray
	}
	return nil
}

func (g *Guard) largest(weight func(row) uint64) (family int, size uint64) {
	sums := map[int]uint64{}
	for _, one := range g.table.rows {
		key := g.table.family(one, g.self, g.session)
		sums[key] += weight(one)
		if sums[key] > size {
			family, size = key, sums[key]
		}
	}
	return family, size
}

func (g *Guard) members(family int) []row {
	var found []row
	for _, one := range g.table.rows {
		if g.table.family(one, g.self, g.session) == family {
			found = append(found, one)
		}
	}
	return found
}
