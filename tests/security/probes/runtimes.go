package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const guest = "/.warren/guestd"

var runtimes = []probe{
	{"guestd's binary is not written", func(where target) error {
		if where.runtime == "docker" { // it has none
			return nil
		}
		for _, path := range []string{guest, "/proc/1/exe"} {
			for _, flags := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND} {
				if file, err := os.OpenFile(path, flags, 0); err == nil {
					_ = file.Close()
					return fmt.Errorf("%s opens for writing", path)
				}
			}
		}
		if os.Chmod(guest, 0o777) == nil || os.Remove(guest) == nil || os.Rename(guest, guest+".old") == nil ||
			os.Truncate(guest, 0) == nil || os.Symlink("/tmp", "/.warren/x") == nil || os.Chown(guest, 0, 0) == nil {
			return errors.New("guestd's file changes")
		}
		if os.Link(guest, "/tmp/guestd") == nil {
			return errors.New("guestd's file is linked")
		}
		return nil
	}},
	{"no program that runs is written through /proc/*/exe", func(target) error {
		found, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, path := range found {
			named, err := os.Readlink(path)
			if err != nil {
				continue
			}
			if strings.Contains(named, "runsc") || strings.Contains(named, "crun") || strings.Contains(named, "memfd:") {
				return fmt.Errorf("the runtime is there: %s", named)
			}
			if _, err := os.Stat(named); err != nil && !strings.HasSuffix(named, " (deleted)") {
				return fmt.Errorf("%s is a program from elsewhere: %s", path, named)
			}
			// Its own programs root may change, where the kernel lets it.
			if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil && strings.HasPrefix(named, "/.warren") {
				_ = file.Close()
				return fmt.Errorf("%s opens for writing: %s", path, named)
			}
		}
		return neighbour(os.ReadFile("/proc/self/exe"))
	}},
	{"no descriptor leads to the host", func(where target) error {
		for _, process := range []string{"1", "self"} {
			found, _ := filepath.Glob("/proc/" + process + "/fd/*")
			for _, path := range append(found, "/proc/"+process+"/cwd") {
				if err := staysInside(path, where); err != nil {
					return err
				}
			}
		}
		return neighbour(os.Stat("/proc/self/fd/0"))
	}},
	{"a working directory by descriptor leads nowhere else", func(where target) error {
		for fd := range 64 {
			if os.Chdir("/proc/self/fd/"+strconv.Itoa(fd)) != nil {
				continue
			}
			if err := staysInside(".", where); err != nil {
				return err
			}
		}
		return os.Chdir("/")
	}},
}

// staysInside: nothing of the host can be named from here by going up.
func staysInside(path string, where target) error {
	up := strings.Repeat("/..", 40)
	for _, canary := range where.canaries {
		var found syscall.Stat_t
		if syscall.Stat(path+up+canary, &found) == nil {
			return fmt.Errorf("%s leads to %s", path, canary)
		}
	}
	return nil
}
