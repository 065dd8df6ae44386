package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

var wires = []probe{
	{"no raw frames and packets", func(target) error {
		for _, each := range [][3]int{{17, 3, 0x0300}, {17, 2, 0x0300}, {2, 3, 1}, {2, 3, 255}, {10, 3, 58}} {
			if fd, err := syscall.Socket(each[0], each[1], each[2]); err == nil {
				_ = syscall.Close(fd)
				return fmt.Errorf("socket(%v) opens", each)
			}
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		return listener.Close()
	}},
	{"interfaces, addresses and routes do not change", func(target) error {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		request := make([]byte, 40)
		copy(request, "eth0")
		for _, number := range []uintptr{syscall.SIOCSIFFLAGS, syscall.SIOCSIFADDR, syscall.SIOCSIFHWADDR, syscall.SIOCADDRT, syscall.SIOCSARP} {
			if number == syscall.SIOCSIFADDR {
				copy(request[16:], []byte{2, 0, 0, 0, 198, 18, 0, 9})
			}
			if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), number, uintptr(unsafe.Pointer(&request[0]))); errno == 0 {
				return fmt.Errorf("ioctl %#x works", number)
			}
		}
		return neighbour(net.InterfaceByName("lo"))
	}},
	{"there is no IPv6", func(target) error {
		text, _ := os.ReadFile("/proc/net/if_inet6")
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(strings.TrimSpace(line), " lo") {
				return fmt.Errorf("an address: %s", line)
			}
		}
		interfaces, err := net.Interfaces()
		if err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		for _, each := range interfaces {
			addresses, _ := each.Addrs()
			for _, address := range addresses {
				if network, ok := address.(*net.IPNet); ok && network.IP.To4() == nil && !network.IP.IsLoopback() {
					return errors.New(address.String())
				}
			}
		}
		return nil
	}},
}
