package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

type device struct {
	name         string
	kind         uint32
	major, minor int
}

var deviceNumbers = []device{
	{"vda", syscall.S_IFBLK, 254, 0}, {"sda", syscall.S_IFBLK, 8, 0}, {"nvme0n1", syscall.S_IFBLK, 259, 0},
	{"loop0", syscall.S_IFBLK, 7, 0}, {"dm-0", syscall.S_IFBLK, 253, 0}, {"mem", syscall.S_IFCHR, 1, 1},
	{"port", syscall.S_IFCHR, 1, 4}, {"kmsg", syscall.S_IFCHR, 1, 11}, {"loop-control", syscall.S_IFCHR, 10, 237},
	{"fuse", syscall.S_IFCHR, 10, 229}, {"tun", syscall.S_IFCHR, 10, 200}, {"kvm", syscall.S_IFCHR, 10, 232},
	{"vhost-net", syscall.S_IFCHR, 10, 238}, {"uinput", syscall.S_IFCHR, 10, 223}, {"tty1", syscall.S_IFCHR, 4, 1},
	{"mapper", syscall.S_IFCHR, 10, 236}, {"net_tun of misc", syscall.S_IFCHR, 10, 175},
}

// usable: whether a node of this device can be made in a folder and opened.
func usable(folder string, wanted device) bool {
	path := filepath.Join(folder, "node-"+wanted.name)
	_ = os.Remove(path)
	if syscall.Mknod(path, wanted.kind|0o666, wanted.major<<8|wanted.minor) != nil {
		return false
	}
	defer os.Remove(path)
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		_ = syscall.Close(fd)
	}
	// A device that is not there answers ENXIO: it would have been opened.
	return err == nil || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV)
}

// devNames are all that may be in /dev; those after `core` are gVisor's own, inside its kernel.
var devNames = strings.Fields("null zero full random urandom tty ptmx pts shm mqueue fd stdin stdout stderr console core")
var devOfSentry = strings.Fields("fuse net char")

var devices = []probe{
	{"no node of a device works", func(where target) error {
		for _, folder := range []string{os.TempDir(), "/dev", "/dev/shm"} {
			for _, each := range deviceNumbers {
				if usable(folder, each) {
					return fmt.Errorf("%s in %s", each.name, folder)
				}
			}
		}
		fifo := filepath.Join(os.TempDir(), fmt.Sprint("fifo", os.Getpid()))
		defer os.Remove(fifo)
		return neighbour(0, syscall.Mkfifo(fifo, 0o600))
	}},
	{"/dev holds only what we put there", func(where target) error {
		entries, err := os.ReadDir("/dev")
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if where.runtime == "runsc" && slices.Contains(devOfSentry, entry.Name()) {
				continue
			}
			if !slices.Contains(devNames, entry.Name()) {
				return fmt.Errorf("/dev/%s", entry.Name())
			}
		}
		if err := neighbour(0, os.WriteFile("/dev/null", []byte("x"), 0)); err != nil {
			return err
		}
		return neighbour(rand.Read(make([]byte, 8)))
	}},
	{"the tunnel, FUSE and KVM devices do not open", func(where target) error {
		for _, path := range []string{"/dev/net/tun", "/dev/fuse", "/dev/kvm", "/dev/vhost-vsock", "/dev/loop-control"} {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				continue
			}
			_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), 0x400454ca, text("tun0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
			_ = file.Close()
			if where.runtime != "runsc" || errno == 0 { // gVisor's own opens, but makes no interface
				return errors.New(path + " opens")
			}
		}
		return nil
	}},
	{"the console is nobody else's", func(target) error {
		for _, path := range []string{"/dev/console", "/dev/tty0", "/dev/ttyS0"} {
			if fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0); err == nil {
				_ = syscall.Close(fd)
				return errors.New(path + " opens")
			}
		}
		return neighbour(os.OpenFile("/dev/ptmx", os.O_RDWR, 0))
	}},
}
