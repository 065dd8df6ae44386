package metrics

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc, the same on every Linux.
const tick = 10 * time.Millisecond

// cpuSource tells how much CPU time the sandbox has used so far.
type cpuSource func() (time.Duration, bool)

// pickCPUSource takes the first of the sandbox's own cgroup, the machine's counters (which
// are the sandbox's in a virtual machine), and the sum over processes.
func (m *Meter) pickCPUSource() cpuSource {
	if m.limited() {
		for _, source := range []cpuSource{m.cgroup2CPU, m.cgroup1CPU} {
			if _, ok := source(); ok {
				return source
			}
		}
	}
	if used, ok := m.machineCPU(); ok && used > 0 {
		return m.machineCPU
	}
	return m.processCPU
}

func (m *Meter) cgroup2CPU() (time.Duration, bool) {
	usec, ok := keyed(m.root+"/sys/fs/cgroup/cpu.stat", "usage_usec")
	return time.Duration(usec) * time.Microsecond, ok
}

func (m *Meter) cgroup1CPU() (time.Duration, bool) {
	for _, folder := range []string{"cpuacct", "cpu,cpuacct"} {
		if nanos, ok := single(m.root + "/sys/fs/cgroup/" + folder + "/cpuacct.usage"); ok {
			return time.Duration(nanos), true
		}
	}
	return 0, false
}

// machineCPU adds up user, nice, system, irq, softirq and steal of the first line of /proc/stat.
func (m *Meter) machineCPU() (time.Duration, bool) {
	content, err := os.ReadFile(m.root + "/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(content), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, false
	}
	var ticks uint64
	for _, at := range []int{1, 2, 3, 6, 7, 8} {
		count, err := strconv.ParseUint(fields[at], 10, 64)
		if err != nil {
			return 0, false
		}
		ticks += count
	}
	return time.Duration(ticks) * tick, true
}

// processCPU adds what lives to what this daemon, which waits for every orphan, has reaped.
func (m *Meter) processCPU() (time.Duration, bool) {
	var own, reaped syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) != nil || syscall.Getrusage(syscall.RUSAGE_CHILDREN, &reaped) != nil {
		return 0, false
	}
	total := spent(own) + spent(reaped)
	entries, err := os.ReadDir(m.root + "/proc")
	if err != nil {
		return 0, false
	}
	self := strconv.Itoa(os.Getpid())
	for _, entry := range entries {
		name := entry.Name()
		if name == self || name[0] < '0' || name[0] > '9' {
			continue
		}
		if stat, err := os.ReadFile(m.root + "/proc/" + name + "/stat"); err == nil {
			total += processTicks(stat)
		}
	}
	return total, true
}

func spent(usage syscall.Rusage) time.Duration {
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// processTicks reads utime, stime, cutime and cstime. The command's name before them may
// hold anything, so counting starts behind its last parenthesis.
func processTicks(stat []byte) time.Duration {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0
	}
	fields := bytes.Fields(stat[end+1:])
	const utime, cstime = 11, 14 // counted from the state, which follows the name
	var ticks uint64
	for at := utime; at <= cstime && at < len(fields); at++ {
		count, err := strconv.ParseUint(string(fields[at]), 10, 63)
		if err == nil {
			ticks += count
		}
	}
	return time.Duration(ticks) * tick
}

// cpuQuota is the number of CPUs that the cgroup allows.
func (m *Meter) cpuQuota() (float64, bool) {
	if content, err := os.ReadFile(m.root + "/sys/fs/cgroup/cpu.max"); err == nil {
		fields := strings.Fields(string(content))
		if len(fields) != 2 {
			return 0, false
		}
		quota, quotaErr := strconv.ParseFloat(fields[0], 64)
		period, periodErr := strconv.ParseFloat(fields[1], 64)
		return quota / period, quotaErr == nil && periodErr == nil && period > 0
	}
	for _, folder := range []string{"cpu", "cpu,cpuacct"} {
		base := m.root + "/sys/fs/cgroup/" + folder
		quota, quotaOK := single(base + "/cpu.cfs_quota_us")
		period, periodOK := single(base + "/cpu.cfs_period_us")
		if quotaOK && periodOK && period > 0 {
			return float64(quota) / float64(period), true
		}
	}
	return 0, false
}
