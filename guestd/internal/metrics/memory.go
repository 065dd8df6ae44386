package metrics

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

type memory struct{ total, used, cache uint64 }

// memory takes the cgroup's word when that has a limit below what the machine has.
func (m *Meter) memory() memory {
	machine := m.machineMemory()
	group, ok := m.groupMemory()
	if ok && (machine.total == 0 || group.total < machine.total) {
		return group
	}
	return machine
}

func (m *Meter) limited() bool {
	machine := m.machineMemory()
	group, ok := m.groupMemory()
	return ok && group.total < machine.total
}

func (m *Meter) machineMemory() memory {
	path := m.root + "/proc/meminfo"
	total, _ := keyed(path, "MemTotal:")
	free, _ := keyed(path, "MemFree:")
	cached, _ := keyed(path, "Cached:")
	available, known := keyed(path, "MemAvailable:")
	if !known {
		available = free + cached
	}
	return memory{
		total: total << 10,
		used:  (total - min(available, total)) << 10,
		cache: cached << 10,
	}
}

// groupMemory reads the files of version 2, then those of version 1. What the kernel can
// drop at once is cache and not use.
func (m *Meter) groupMemory() (memory, bool) {
	base := m.root + "/sys/fs/cgroup/"
	limit, limitOK := single(base + "memory.max")
	usage, usageOK := single(base + "memory.current")
	stat, inactive, cached := base+"memory.stat", "inactive_file", "file"
	if !limitOK || !usageOK {
		base += "memory/"
		limit, limitOK = single(base + "memory.limit_in_bytes")
		usage, usageOK = single(base + "memory.usage_in_bytes")
		stat, inactive, cached = base+"memory.stat", "total_inactive_file", "total_cache"
	}
	if !limitOK || !usageOK {
		return memory{}, false
	}
	droppable, _ := keyed(stat, inactive)
	cache, _ := keyed(stat, cached)
	return memory{total: limit, used: usage - min(droppable, usage), cache: cache}, true
}

// single reads a file that holds one number.
func single(path string) (uint64, bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
	return value, err == nil
}

// keyed reads the number behind a key in a file of "key number" lines.
func keyed(path, key string) (uint64, bool) {
	file, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == key {
			value, err := strconv.ParseUint(fields[1], 10, 64)
			return value, err == nil
		}
	}
	return 0, false
}
