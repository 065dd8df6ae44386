package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// writable: gVisor lets root open switches of its own kernel, which is this one sandbox's. Whoever runs the probes
// looks whether the host's have changed.
func writable(where target, top string, skip func(string) bool) error {
	if where.runtime == "runsc" {
		return nil
	}
	var open []string
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || skip(path) {
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		if opens(path) {
			open = append(open, path)
		}
		return nil
	})
	if len(open) > 0 {
		return fmt.Errorf("open for writing: %s", strings.Join(open[:min(len(open), 8)], " "))
	}
	return nil
}

// opens for writing, and is not /dev/null put over it.
func opens(path string) bool {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	var found syscall.Stat_t
	return syscall.Fstat(int(file.Fd()), &found) != nil || found.Mode&syscall.S_IFMT != syscall.S_IFCHR || found.Rdev != 1<<8|3
}

func notWritten(paths ...string) func(target) error {
	return func(where target) error {
		for _, path := range paths {
			if where.runtime == "runsc" {
				_ = os.WriteFile(path, []byte("1"), 0) // to its own kernel; the host's must stay as it is
			} else if opens(path) {
				return fmt.Errorf("%s opens for writing", path)
			}
		}
		return nil
	}
}

// ofSentry are files in which gVisor tells of its own kernel.
var ofSentry = []string{"/proc/cmdline"}

func empty(paths ...string) func(target) error {
	return func(where target) error {
		for _, path := range paths {
			if where.runtime == "runsc" && slices.Contains(ofSentry, path) {
				continue
			}
			file, err := os.Open(path)
			if err != nil {
				continue
			}
			read, _ := file.Read(make([]byte, 16))
			_ = file.Close()
			if read > 0 {
				return fmt.Errorf("%s has something to read", path)
			}
		}
		return nil
	}
}

var controls = []probe{
	{"no switch below /proc/sys turns", func(where target) error {
		if err := writable(where, "/proc/sys", func(string) bool { return false }); err != nil {
			return err
		}
		return neighbour(os.ReadFile("/proc/sys/kernel/ostype"))
	}},
	{"no file below /sys opens for writing", func(where target) error {
		return writable(where, "/sys", func(path string) bool { return strings.Count(path, "/") > 9 })
	}},
	{"no file of /proc itself opens for writing", func(where target) error {
		processes := func(path string) bool {
			name := strings.TrimPrefix(path, "/proc/")
			return name == "sys" || name == "self" || name == "thread-self" || (name != path && name[0] >= '0' && name[0] <= '9')
		}
		if err := writable(where, "/proc", processes); err != nil {
			return err
		}
		return neighbour(0, os.WriteFile("/proc/self/comm", []byte("probe"), 0))
	}},
	{"core_pattern, modprobe, binfmt_misc, uevent_helper, sysrq", notWritten(
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
		"/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status", "/sys/kernel/uevent_helper",
		"/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/power/state", "/proc/sys/vm/panic_on_oom", "/proc/mtrr", "/proc/bus/pci/00/00.0",
	)},
	{"release_agent and notify_on_release", func(where target) error {
		var found []string
		for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*", "/cgroup", "/dev/cgroup"} {
			for _, name := range []string{"release_agent", "notify_on_release", "cgroup.procs", "devices.allow"} {
				paths, _ := filepath.Glob(top + "/" + name)
				found = append(found, paths...)
			}
		}
		return notWritten(found...)(where)
	}},
	{"kernel memory, log, keys and symbols are not read", empty(
		"/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/proc/keys", "/proc/kallsyms",
		"/proc/timer_list", "/proc/sched_debug", "/proc/iomem", "/proc/ioports", "/proc/config.gz", "/proc/cmdline",
		"/proc/modules", "/proc/diskstats", "/sys/firmware/acpi/tables/DSDT", "/sys/kernel/debug/sched/debug",
	)},
	{"masks are no door", func(target) error {
		// What masks a file must not be a device or a link that a sandbox could put something else behind.
		for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger"} {
			if os.Remove(path) == nil || os.Rename(path, path+".old") == nil || os.Symlink("/tmp", path+"/x") == nil {
				return errors.New(path + " changes")
			}
		}
		return nil
	}},
}
