package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

var processes = []probe{
	{"processes of the host are not seen", func(where target) error {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", where.hostPid)); err == nil && bytes.Contains(text, []byte("warren")) {
			return fmt.Errorf("the server is there: %q", text)
		}
		found, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, path := range found {
			name, _ := os.ReadFile(path)
			switch strings.TrimSpace(string(name)) {
			case "warren", "runsc", "runsc-sandbox", "runsc-gofer", "crun", "dockerd", "containerd", "kthreadd", "systemd":
				return fmt.Errorf("%s is of the host: %s", path, name)
			}
		}
		if _, err := os.Stat("/proc/self/status"); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		return nil
	}},
	{"processes of the host are not signalled", func(where target) error {
		if err := syscall.Kill(where.hostPid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill(%d, 0) = %v", where.hostPid, err)
		}
		sleeper := exec.Command("sleep", "300")
		if err := sleeper.Start(); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		if err := sleeper.Process.Kill(); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		_ = sleeper.Wait()
		return nil
	}},
	{"processes of the host are not traced", func(where target) error {
		if err := syscall.PtraceAttach(where.hostPid); err == nil {
			return errors.New("attached to the server")
		}
		own := exec.Command("/bin/true")
		own.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		if err := own.Start(); err != nil {
			return fmt.Errorf("neighbour: a child of one's own: %w", err)
		}
		_ = own.Process.Kill()
		_, _ = own.Process.Wait()
		return nil
	}},
	{"/proc/*/root leads nowhere else", func(where target) error {
		roots, _ := filepath.Glob("/proc/[0-9]*/root")
		for _, root := range roots {
			for _, canary := range where.canaries {
				if _, err := os.Stat(root + canary); err == nil {
					return fmt.Errorf("%s%s is there", root, canary)
				}
			}
		}
		return neighbour(os.Stat("/proc/self/root/etc/passwd"))
	}},
	{"no environment of the host is readable", func(where target) error {
		found, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range found {
			text, _ := os.ReadFile(path)
			for _, word := range []string{"WARREN_", "KUBERNETES_", "DOCKER_", "AWS_"} {
				if strings.HasPrefix(string(text), word) || bytes.Contains(text, []byte("\x00"+word)) {
					return fmt.Errorf("%s has %s", path, word)
				}
			}
		}
		return neighbour(os.ReadFile("/proc/self/environ"))
	}},
}

func neighbour[T any](_ T, err error) error {
	if err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	return nil
}
