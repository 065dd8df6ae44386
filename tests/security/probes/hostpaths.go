package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

var ownKinds = []string{"proc", "tmpfs", "devpts", "mqueue", "sysfs", "devtmpfs", "cgroup", "cgroup2"}

var hostPaths = []probe{
	{"nothing of the host's folders is there", func(where target) error {
		for _, canary := range where.canaries {
			if _, err := os.Lstat(canary); err == nil {
				return errors.New(canary)
			}
		}
		return neighbour(os.ReadFile("/etc/passwd"))
	}},
	{"no socket of a container engine, no token of a cluster", func(target) error {
		for _, path := range []string{
			"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
			"/run/podman/podman.sock", "/run/buildkit/buildkitd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
			"/var/run/secrets/kubernetes.io/serviceaccount/token", "/root/.kube/config", "/etc/kubernetes", "/var/lib/kubelet",
			"/host", "/hostfs", "/rootfs", "/mnt/host",
		} {
			if _, err := os.Lstat(path); err == nil {
				return errors.New(path)
			}
		}
		return nil
	}},
	{"what is mounted is read-only or in memory, but for the root", func(target) error {
		text, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		writable := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line) // a later mount covers an earlier one
			writable[fields[1]] = !slices.Contains(ownKinds, fields[2]) && !slices.Contains(strings.Split(fields[3], ","), "ro")
		}
		delete(writable, "/")
		for _, own := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} { // Docker's, one of each container
			delete(writable, own)
		}
		for place, may := range writable {
			if may {
				return errors.New(place + " is mounted for writing")
			}
		}
		return nil
	}},
	{"no disk of the host is opened by its number", func(target) error {
		var root syscall.Stat_t
		if err := syscall.Stat("/", &root); err != nil {
			return err
		}
		path := fmt.Sprint(os.TempDir(), "/root-disk", os.Getpid())
		defer os.Remove(path)
		if syscall.Mknod(path, syscall.S_IFBLK|0o600, int(root.Dev)) != nil {
			return nil
		}
		if file, err := os.Open(path); err == nil {
			_ = file.Close()
			return errors.New("the disk below the root opens")
		}
		return nil
	}},
}
