// Package metrics measures the sandbox from inside. A container shows the numbers of its
// host in /proc, gVisor shows its own but leaves some at zero: where a cgroup with limits
// is visible it knows better than /proc, and where no CPU time is counted for the machine
// the time of the processes is.
package metrics

import (
	"math"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const mib = 1 << 20

// Sample is the wire form.
type Sample struct {
	TS          int64   `json:"ts"`
	CPUCount    int     `json:"cpu_count"`
	CPUUsedPct  float64 `json:"cpu_used_pct"`
	MemTotal    uint64  `json:"mem_total"`
	MemUsed     uint64  `json:"mem_used"`
	MemCache    uint64  `json:"mem_cache"`
	MemTotalMiB uint64  `json:"mem_total_mib"`
	MemUsedMiB  uint64  `json:"mem_used_mib"`
	DiskUsed    uint64  `json:"disk_used"`
	DiskTotal   uint64  `json:"disk_total"`
}

// minInterval is the shortest time over which a CPU share means anything: clocks of
// processes tick a hundred times a second.
const minInterval = 200 * time.Millisecond

// Meter remembers the CPU time of its last reading, and reports the share since then.
type Meter struct {
	root string // before /proc and /sys; empty outside tests
	disk string
	now  func() time.Time

	mu     sync.Mutex
	at     time.Time
	used   time.Duration
	share  float64
	source cpuSource
}

// New returns a meter over the files under root, "" for the real ones.
func New(root, disk string, now func() time.Time) *Meter {
	m := &Meter{root: root, disk: disk, now: now}
	return m
}

// Read measures now.
func (m *Meter) Read() Sample {
	count := m.cpuCount()
	sample := Sample{TS: m.now().Unix(), CPUCount: count, CPUUsedPct: m.cpuShare(count)}
	memory := m.memory()
	sample.MemTotal, sample.MemUsed, sample.MemCache = memory.total, memory.used, memory.cache
	sample.MemTotalMiB, sample.MemUsedMiB = memory.total/mib, memory.used/mib
	var disk syscall.Statfs_t
	if syscall.Statfs(m.disk, &disk) == nil {
		block := uint64(disk.Bsize)
		sample.DiskTotal = disk.Blocks * block
		sample.DiskUsed = (disk.Blocks - min(disk.Bfree, disk.Blocks)) * block
	}
	return sample
}

// cpuShare is the part of all CPUs in use since the last reading, in percent. The first
// reading has nothing to compare with and takes the average since the sandbox began.
func (m *Meter) cpuShare(count int) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.source == nil {
		m.source = m.pickCPUSource()
	}
	now := m.now()
	if !m.at.IsZero() && now.Sub(m.at) < minInterval {
		return m.share
	}
	used, ok := m.source()
	if !ok {
		return 0
	}
	since := now.Sub(m.at)
	if m.at.IsZero() {
		since = m.uptime(now)
	}
	if since > 0 {
		percent := 100 * float64(used-m.used) / float64(since) / float64(count)
		m.share = math.Round(100*min(max(percent, 0), 100)) / 100
	}
	m.at, m.used = now, used
	return m.share
}

func (m *Meter) uptime(now time.Time) time.Duration {
	if info, err := os.Stat(m.root + "/proc/1"); err == nil {
		return now.Sub(info.ModTime())
	}
	return 0
}

// cpuCount is how many CPUs may be used: a quota below the machine's number decides.
func (m *Meter) cpuCount() int {
	count := runtime.NumCPU()
	if quota, ok := m.cpuQuota(); ok {
		count = min(count, max(int(math.Ceil(quota)), 1))
	}
	return count
}
