package metrics

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// machine lays files out under a folder that stands for "/".
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const meminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nBuffers:  5 kB\nCached:          250 kB\n"

func TestMemoryOfTheMachine(t *testing.T) {
	m := New(machine(t, map[string]string{"proc/meminfo": meminfo}), "/", time.Now)
	if got := m.memory(); got != (memory{total: 1000 << 10, used: 600 << 10, cache: 250 << 10}) {
		t.Errorf("got %+v", got)
	}
}

func TestMemoryOfTheGroupCountsWhenItIsTighter(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"v2": {
			"sys/fs/cgroup/memory.max": "500000\n", "sys/fs/cgroup/memory.current": "300000\n",
			"sys/fs/cgroup/memory.stat": "anon 1\nfile 200000\ninactive_file 100000\n",
		},
		"v1": {
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "300000\n",
			"sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_cache 200000\ntotal_inactive_file 100000\n",
		},
	} {
		files["proc/meminfo"] = meminfo
		m := New(machine(t, files), "/", time.Now)
		if got := m.memory(); got != (memory{total: 500000, used: 200000, cache: 200000}) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestGroupWithoutALimitSaysNothing(t *testing.T) {
	m := New(machine(t, map[string]string{
		"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1\n",
	}), "/", time.Now)
	if got := m.memory(); got.total != 1000<<10 {
		t.Errorf("got %+v", got)
	}
	unlimited := New(machine(t, map[string]string{
		"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
	}), "/", time.Now)
	if got := unlimited.memory(); got.total != 1000<<10 {
		t.Errorf("got %+v", got)
	}
}

func TestShareOfCPUSinceTheLastReading(t *testing.T) {
	root := machine(t, map[string]string{"proc/stat": "cpu  100 0 100 5000 0 0 0 0 0 0\n"})
	now := time.Unix(1000, 0)
	m := New(root, "/", func() time.Time { return now })
	m.cpuShare(2)
	now = now.Add(10 * time.Second)
	// 10 s of two CPUs, 5 s of them used: 400 ticks of user and 100 of system time.
	if err := os.WriteFile(filepath.Join(root, "proc/stat"), []byte("cpu  500 0 200 5000 0 0 0 0 0 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := m.cpuShare(2); got != 25 {
		t.Errorf("got %v", got)
	}
	now = now.Add(minInterval / 2)
	if got := m.cpuShare(2); got != 25 {
		t.Errorf("too soon for a new one, got %v", got)
	}
}

func TestProcessesCountWhereTheMachineDoesNot(t *testing.T) {
	m := New(machine(t, map[string]string{
		"proc/stat":   "cpu  0 0 0 0 0 0 0 0 0 0\n",
		"proc/7/stat": "7 (a) b) (c) S 1 7 1 0 0 0 0 0 0 0 100 50 25 25 20 0 1 0 5 13\n",
	}), "/", time.Now)
	source := m.pickCPUSource()
	used, ok := source()
	if own, _ := m.processCPU(); !ok || used < 2*time.Second || own < used {
		t.Errorf("got %v, %v", used, ok)
	}
}

func TestQuotaDecidesOnTheNumberOfCPUs(t *testing.T) {
	for quota, want := range map[string]float64{"150000 100000": 1.5, "max 100000": 0} {
		m := New(machine(t, map[string]string{"sys/fs/cgroup/cpu.max": quota + "\n"}), "/", time.Now)
		if got, ok := m.cpuQuota(); ok != (want > 0) || ok && got != want {
			t.Errorf("%s gives %v, %v", quota, got, ok)
		}
	}
	m := New(machine(t, map[string]string{
		"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}), "/", time.Now)
	if got := m.cpuCount(); got != 1 {
		t.Errorf("half a CPU is reported as %d", got)
	}
}

func TestReadingOfThisMachine(t *testing.T) {
	got := New("", "/", time.Now).Read()
	if got.MemTotal == 0 || got.MemUsed > got.MemTotal || got.CPUCount < 1 || got.DiskTotal == 0 || got.DiskUsed > got.DiskTotal ||
		got.CPUUsedPct < 0 || got.CPUUsedPct > 100 || got.MemTotalMiB != got.MemTotal/mib {
		t.Errorf("got %+v", got)
	}
}

func FuzzProcessTicks(f *testing.F) {
	f.Fuzz(func(t *testing.T, stat []byte) { processTicks(stat) })
}
