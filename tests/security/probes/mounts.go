package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"
)

func mount(source, place, kind string, flags uintptr) func(target) error {
	return func(target) error {
		folder := place
		if place == "" {
			folder, _ = os.MkdirTemp("", "mount")
			defer os.Remove(folder)
		}
		if err := syscall.Mount(source, folder, kind, flags, ""); err == nil {
			_ = syscall.Unmount(folder, syscall.MNT_DETACH)
			return errors.New("mounted")
		}
		return neighbour(os.ReadFile("/proc/self/mounts"))
	}
}

func call(number uintptr, arguments ...uintptr) func(target) error {
	return func(target) error {
		var a [6]uintptr
		copy(a[:], arguments)
		if r, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno == 0 {
			return fmt.Errorf("system call %d answers %d", number, r)
		}
		return nil
	}
}

func text(words string) uintptr {
	pointer, _ := syscall.BytePtrFromString(words)
	kept = append(kept, pointer)
	return uintptr(unsafe.Pointer(pointer))
}

var kept []*byte // what the kernel is shown by address must not be collected

var mounts = []probe{
	{"mount tmpfs", mount("none", "", "tmpfs", 0)},
	{"mount proc", mount("proc", "", "proc", 0)},
	{"mount sysfs", mount("sysfs", "", "sysfs", 0)},
	{"mount cgroup", mount("cgroup", "", "cgroup", 0)},
	{"mount cgroup2", mount("none", "", "cgroup2", 0)},
	{"mount overlay", mount("overlay", "", "overlay", 0)},
	{"bind mount of the root", mount("/", "", "", syscall.MS_BIND|syscall.MS_REC)},
	{"remount of guestd's folder", mount("", "/.warren", "", syscall.MS_REMOUNT|syscall.MS_BIND)},
	{"remount of /proc/sys", mount("", "/proc/sys", "", syscall.MS_REMOUNT|syscall.MS_BIND)},
	{"shared propagation", mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC)},
	{"umount of /proc", func(target) error {
		if syscall.Unmount("/proc", syscall.MNT_DETACH) == nil {
			return errors.New("unmounted")
		}
		return neighbour(os.Stat("/proc/self"))
	}},
	{"pivot_root", call(syscall.SYS_PIVOT_ROOT, text("/tmp"), text("/tmp"))},
	{"fsopen", call(430, text("tmpfs"), 0)},
	{"open_tree", call(428, ^uintptr(99), text("/"), 1)},
	{"move_mount", call(429, ^uintptr(99), text("/"), ^uintptr(99), text("/tmp"), 0)},
	{"mount_setattr", call(442, ^uintptr(99), text("/"), 0, text("\x01"), 32)},
	{"setns into the first process", func(target) error {
		for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"} {
			file, err := os.Open("/proc/1/ns/" + kind)
			if err != nil {
				continue
			}
			_, _, errno := syscall.Syscall(308, file.Fd(), 0, 0)
			_ = file.Close()
			if errno == 0 {
				return fmt.Errorf("entered the %s namespace", kind)
			}
		}
		return nil
	}},
	{"open_by_handle_at", func(target) error {
		handle := make([]byte, 8+128)
		handle[0] = 128
		var id int32
		at := ^uintptr(99) // AT_FDCWD
		_, _, errno := syscall.Syscall6(303, at, text("/etc/passwd"), uintptr(unsafe.Pointer(&handle[0])), uintptr(unsafe.Pointer(&id)), 0, 0)
		if errno != 0 { // no handles here at all: ask for the inode that is the root on most file systems
			handle[0], handle[4], handle[8] = 8, 1, 2
		}
		if _, _, errno := syscall.Syscall(304, at, uintptr(unsafe.Pointer(&handle[0])), 0); errno == 0 {
			return errors.New("opened by handle")
		}
		return neighbour(os.ReadFile("/etc/passwd"))
	}},
	{"chroot and out again", func(where target) error {
		if where.root {
			return inChild(append([]string{"chroot", where.runtime}, where.canaries...)...)
		}
		if syscall.Chroot("/tmp") == nil {
			return errors.New("a user may chroot")
		}
		return nil
	}},
	{"new namespaces give nothing of the host", func(where target) error {
		return inChild("namespaces", where.runtime)
	}},
}

// child is what a probe starts as a process of its own; it says what it won on standard output.
func child(what string) {
	switch what {
	case "chroot":
		chrootOut(target{runtime: os.Args[2], canaries: os.Args[3:]})
	case "namespaces":
		for _, won := range namespaces(os.Args[2]) {
			fmt.Println(won)
		}
	case "inside":
		for _, won := range insideNamespaces() {
			fmt.Println(won)
		}
	case "status":
		status, _ := os.ReadFile("/proc/self/status")
		fmt.Printf("%s", status)
	}
}

func inChild(arguments ...string) error {
	said, _ := exec.Command("/proc/self/exe", arguments...).Output()
	if len(said) > 0 {
		return errors.New(strings.TrimSpace(string(said)))
	}
	return nil
}

func chrootOut(where target) {
	root, err := os.Stat("/")
	folder, _ := os.MkdirTemp("", "chroot")
	defer os.RemoveAll(folder)
	if err != nil || syscall.Chroot(folder) != nil {
		return
	}
	for range 64 {
		_ = os.Chdir("..")
	}
	_ = syscall.Chroot(".")
	if above, err := os.Stat("/"); err != nil || !os.SameFile(root, above) {
		// gVisor has an empty directory of its own up there.
		if entries, err := os.ReadDir("/"); err != nil || len(entries) > 0 || where.runtime != "runsc" {
			fmt.Println("above the root there is something else", err, entries)
		}
	}
	if err := staysInside("/", where); err != nil {
		fmt.Println(err)
	}
}

var namespaceFlags = map[string]uintptr{
	"user": syscall.CLONE_NEWUSER, "mnt": syscall.CLONE_NEWNS, "pid": syscall.CLONE_NEWPID, "net": syscall.CLONE_NEWNET,
	"ipc": syscall.CLONE_NEWIPC, "uts": syscall.CLONE_NEWUTS, "cgroup": 0x02000000, "time": 0x80,
}

// namespaces: on the host's kernel none may be made. gVisor makes some of its own; there nothing may come of it.
func namespaces(runtime string) (won []string) {
	for name, flag := range namespaceFlags {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_UNSHARE, flag, 0, 0); errno == 0 && runtime != "runsc" {
			won = append(won, "unshare of "+name)
		}
		if name == "time" {
			continue // shares its bit with the signal that clone(2) sends
		}
		inner := exec.Command("/proc/self/exe", "status")
		inner.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
		if inner.Run() == nil && runtime != "runsc" {
			won = append(won, "clone into new "+name)
		}
	}
	inner := exec.Command("/proc/self/exe", "inside")
	inner.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if said, err := inner.Output(); err == nil && len(said) > 0 {
		won = append(won, strings.TrimSpace(string(said)))
	}
	return won
}

// insideNamespaces runs as root of namespaces of its own, where the kernel gave it some.
func insideNamespaces() (won []string) {
	for _, device := range deviceNumbers {
		if usable(os.TempDir(), device) {
			won = append(won, "a new user namespace opens "+device.name)
		}
	}
	folder, _ := os.MkdirTemp("", "inside")
	for _, kind := range []string{"sysfs", "cgroup", "proc"} {
		if syscall.Mount("none", folder, kind, 0, "") != nil {
			continue
		}
		for _, name := range []string{"release_agent", "kernel/uevent_helper", "sys/kernel/core_pattern"} {
			if file, err := os.OpenFile(folder+"/"+name, os.O_WRONLY, 0); err == nil {
				_ = file.Close()
				won = append(won, "a new user namespace writes "+name)
			}
		}
		_ = syscall.Unmount(folder, syscall.MNT_DETACH)
	}
	return won
}
