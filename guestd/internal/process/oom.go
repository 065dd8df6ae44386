package process

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"sync"

	"warren.dev/guestd/internal/pressure"
)

// exitKilled is how a shell says that its child was killed.
const exitKilled = 128 + 9

var outOfMemory = pressure.OutOfMemory

// oomFiles are where cgroups of version 2 and 1 count what the kernel killed for memory. A
// sandbox under gVisor has neither: there the guard ends processes, and says so.
var oomFiles = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}

// oomCount is a number of processes that the kernel has killed for memory.
type oomCount int

// oomKills shares the kernel's kills out to the commands that ended by one.
type oomKills struct {
	mu      sync.Mutex
	claimed oomCount
}

func newOOMKills() *oomKills { return &oomKills{claimed: oomKilled()} }

// claim says whether the kernel has killed more than it had when a command began and than
// other commands have claimed.
func (k *oomKills) claim(before oomCount) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := max(before, k.claimed)
	if oomKilled() <= known {
		return false
	}
	k.claimed = known + 1
	return true
}

func oomKilled() oomCount {
	for _, path := range oomFiles {
		if content, err := os.ReadFile(path); err == nil {
			return parseOOMKills(content)
		}
	}
	return 0
}

func parseOOMKills(content []byte) oomCount {
	for line := range bytes.Lines(content) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if string(name) == "oom_kill" {
			count, _ := strconv.Atoi(string(value))
			return oomCount(count)
		}
	}
	return 0
}

// Runs implements pressure.Commands.
func (s *Service) Runs(pid int) bool {
	p := s.registry.byID(uint32(pid))
	return p != nil && !p.hasEnded()
}

// Blame implements pressure.Commands.
func (s *Service) Blame(lineage []int, reason string) {
	for _, p := range s.registry.running() {
		if slices.Contains(lineage, int(p.pid)) {
			p.blame.Store(&reason)
			if int(p.pid) == lineage[0] {
				p.signalOnce.Do(func() { close(p.signalled) }) // what it leaves behind may hold its output open
			}
		}
	}
}
