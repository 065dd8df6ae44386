package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const allowed = 0xA00405FB // the twelve of bundle.CAPABILITIES

func masks(status string) map[string]uint64 {
	found := map[string]uint64{}
	for line := range strings.Lines(status) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(name, "Cap") {
			found[name], _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return found
}

func withinBounds(status string) error {
	for name, mask := range masks(status) {
		if mask&^allowed != 0 {
			return fmt.Errorf("%s has %#x beyond the twelve", name, mask&^allowed)
		}
	}
	return nil
}

// copyOf: this program as a file of its own, to be given rights.
func copyOf(mode os.FileMode) (string, error) {
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp("", "rights")
	if err != nil {
		return "", err
	}
	_ = os.Chmod(folder, 0o755)
	path := filepath.Join(folder, "copy")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		return "", err
	}
	return path, os.Chmod(path, mode)
}

func asSomebody(path string) (string, error) {
	command := exec.Command(path, "status")
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	said, err := command.Output()
	return string(said), err
}

var privileges = []probe{
	{"capabilities are the twelve and none is ambient", func(where target) error {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		have := masks(string(status))
		if have["CapAmb"] != 0 || have["CapInh"] != 0 {
			return errors.New("some are ambient or inheritable")
		}
		if !where.root && have["CapEff"] != 0 {
			return errors.New("a user has some")
		}
		return withinBounds(string(status))
	}},
	{"capabilities of a file give no more", func(where target) error {
		path, err := copyOf(0o755)
		if err != nil {
			return err
		}
		defer os.RemoveAll(filepath.Dir(path))
		for _, mask := range []uint64{1<<41 - 1, 1 << 21, allowed} {
			attribute := make([]byte, 20)
			binary.LittleEndian.PutUint32(attribute, 0x02000001)
			for word := range 2 {
				binary.LittleEndian.PutUint32(attribute[4+8*word:], uint32(mask>>(32*word)))
			}
			if err := syscall.Setxattr(path, "security.capability", attribute, 0); err != nil {
				if where.root && mask == allowed && where.runtime == "crun" {
					return fmt.Errorf("neighbour: dpkg could not set file capabilities: %w", err)
				}
				continue
			}
			if !where.root && where.runtime != "runsc" {
				return errors.New("a user sets capabilities of a file")
			}
			if status, err := asSomebody(path); err == nil {
				if err := withinBounds(status); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{"a set-uid file gives no more than root inside", func(where target) error {
		if !where.root {
			said, err := exec.Command("sudo", "cat", "/proc/self/status").Output()
			if err != nil {
				return fmt.Errorf("neighbour: sudo: %w", err)
			}
			return withinBounds(string(said))
		}
		path, err := copyOf(0o755 | os.ModeSetuid)
		if err != nil {
			return err
		}
		defer os.RemoveAll(filepath.Dir(path))
		said, err := asSomebody(path)
		if err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		return withinBounds(said)
	}},
	{"root inside is nobody outside", func(where target) error {
		ids, err := os.ReadFile("/proc/self/uid_map")
		if err != nil || where.runtime == "runsc" { // there the map is the sentry's own tale
			return err
		}
		fields := strings.Fields(string(ids))
		if len(fields) != 3 || fields[1] == "0" || fields[2] != "65536" {
			return fmt.Errorf("uid_map: %s", fields)
		}
		return nil
	}},
	{"what root needs works", func(where target) error {
		if !where.root {
			return nil
		}
		path := filepath.Join(os.TempDir(), fmt.Sprint("owned", os.Getpid()))
		defer os.Remove(path)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		if err := os.Chown(path, 1000, 1000); err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:81")
		if err != nil {
			return fmt.Errorf("neighbour: a low port: %w", err)
		}
		return listener.Close()
	}},
}
