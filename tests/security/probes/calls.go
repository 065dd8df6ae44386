package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// A kernel call that only the host's administrator has business with, with arguments that would work for him.
type dangerous struct {
	name      string
	number    uintptr
	arguments []uintptr
}

var zeros = make([]byte, 256)

func blank() uintptr { return uintptr(unsafe.Pointer(&zeros[0])) }

var dangerousCalls = []dangerous{
	{"acct", 163, []uintptr{text("/tmp")}},
	{"add_key", 248, []uintptr{text("user"), text("k"), text("v"), 1, ^uintptr(2)}},
	{"adjtimex", 159, []uintptr{text("\x02")}},
	{"bpf", 321, []uintptr{0, text("\x02\x00\x00\x00\x04\x00\x00\x00\x04\x00\x00\x00\x01"), 72}},
	{"clock_adjtime", 305, []uintptr{0, text("\x02")}},
	{"clock_settime", 227, []uintptr{0, blank()}},
	{"create_module", 174, nil},
	{"delete_module", 176, []uintptr{text("loop"), 0}},
	{"fanotify_init", 300, []uintptr{0, 0}},
	{"finit_module", 313, []uintptr{0, text(""), 0}},
	{"fsconfig", 431, nil},
	{"fsmount", 432, nil},
	{"fspick", 433, []uintptr{^uintptr(99), text("/"), 0}},
	{"init_module", 175, []uintptr{blank(), 64, text("")}},
	{"io_setup", 206, []uintptr{65536, blank()}}, // all that the machine has, and what it has is not counted for a user
	{"io_uring_enter", 426, nil},
	{"io_uring_register", 427, nil},
	{"io_uring_setup", 425, []uintptr{4, blank()}},
	{"ioperm", 173, []uintptr{0x80, 1, 1}},
	{"iopl", 172, []uintptr{3}},
	{"kexec_file_load", 320, nil},
	{"kexec_load", 246, []uintptr{0, 0, 0, 0}},
	{"keyctl", 250, []uintptr{1, text("ring")}},
	{"mbind", 237, nil},
	{"migrate_pages", 256, []uintptr{1, 0, 0, 0}},
	{"move_pages", 279, []uintptr{1, 0, 0, 0, 0, 0}},
	{"perf_event_open", 298, []uintptr{text("\x01\x00\x00\x00\x80"), 0, ^uintptr(0), ^uintptr(0), 0}},
	{"quotactl", 179, []uintptr{0x800004 << 8, text("/dev/vda"), 0, blank()}},
	{"reboot", 169, []uintptr{0xfee1dead, 672274793, 0x89abcdef}}, // only switches ctrl-alt-del off
	{"request_key", 249, []uintptr{text("user"), text("k"), 0, 0}},
	{"setdomainname", 171, []uintptr{text("x"), 1}},
	{"sethostname", 170, []uintptr{text("x"), 1}},
	{"settimeofday", 164, []uintptr{blank(), 0}},
	{"swapoff", 168, []uintptr{text("/swap")}},
	{"swapon", 167, []uintptr{text("/swap"), 0}},
	{"syslog", 103, []uintptr{5, 0, 0}},
	{"userfaultfd", 323, []uintptr{0}},
	{"vhangup", 153, nil},
}

// answeredBySentry are calls that gVisor answers about itself: its own log, keys, memory policy and I/O.
var answeredBySentry = map[string]bool{
	"add_key": true, "keyctl": true, "request_key": true, "syslog": true, "mbind": true, "move_pages": true, "migrate_pages": true,
	"io_setup": true,
}

var calls = append(perCall(), []probe{
	{"what programs need is answered", func(target) error {
		for name, one := range map[string][]uintptr{"memfd_create": {319, text("x"), 0}, "getrandom": {318, blank(), 8, 0}, "eventfd2": {290, 0, 0}, "pidfd_open": {434, uintptr(os.Getpid()), 0}} {
			if _, _, errno := syscall.Syscall(one[0], one[1], one[2], 0); errno != 0 {
				return fmt.Errorf("neighbour: %s: %w", name, errno)
			}
		}
		return nil
	}},
	{"clone3 does not exist", func(where target) error {
		if where.runtime == "runsc" {
			return nil
		}
		if _, _, errno := syscall.RawSyscall(435, 0, 0, 0); errno != syscall.ENOSYS {
			return fmt.Errorf("clone3: %v", errno)
		}
		return nil
	}},
	{"unusual socket families are refused", func(where target) error {
		for _, family := range []int{3, 4, 5, 8, 9, 15, 17, 21, 23, 26, 29, 30, 31, 32, 33, 35, 37, 38, 39, 40, 41, 42, 43, 44, 45} {
			for _, kind := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_RAW, syscall.SOCK_SEQPACKET} {
				if fd, err := syscall.Socket(family, kind, 0); err == nil {
					_ = syscall.Close(fd)
					return fmt.Errorf("family %d opens", family)
				}
			}
		}
		for _, family := range []int{syscall.AF_UNIX, syscall.AF_INET, syscall.AF_INET6, syscall.AF_NETLINK} {
			fd, err := syscall.Socket(family, syscall.SOCK_DGRAM, 0)
			if err != nil && !(family == syscall.AF_INET6 && errors.Is(err, syscall.EAFNOSUPPORT)) {
				return fmt.Errorf("neighbour: family %d: %w", family, err)
			}
			_ = syscall.Close(fd)
		}
		return nil
	}},
	{"a filter of system calls is in force", func(where target) error {
		status, _ := os.ReadFile("/proc/self/status")
		if where.runtime != "runsc" && !strings.Contains(string(status), "Seccomp:\t2") {
			return errors.New("no seccomp filter")
		}
		return nil
	}},
}...)

func perCall() []probe {
	made := make([]probe, 0, len(dangerousCalls))
	for _, each := range dangerousCalls {
		made = append(made, probe{"call " + each.name, func(where target) error {
			if where.runtime == "runsc" && answeredBySentry[each.name] {
				return nil
			}
			var a [6]uintptr
			copy(a[:], each.arguments)
			answer, _, errno := syscall.Syscall6(each.number, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno == 0 {
				return fmt.Errorf("answers %d", answer)
			}
			if where.runtime != "runsc" && errno != syscall.EPERM && errno != syscall.ENOSYS {
				return fmt.Errorf("the kernel looks at its arguments: %v", errno)
			}
			return nil
		}})
	}
	return made
}
