package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	certificatesFile = "ssl/certs/ca-certificates.crt"
	beginMark        = "# guestd: begin of the platform's certificates\n"
	endMark          = "# guestd: end of the platform's certificates\n"
	// maxBundleBytes bounds what is read back of a bundle that the sandbox may have filled.
	maxBundleBytes = 8 << 20
)

// Writer puts identities into the folders it was given, usually /etc and /run/e2b. What it
// would write again it leaves alone: the sandbox may have made the file its own since, and
// under gVisor each file takes a millisecond of the time in which a spare becomes a sandbox.
type Writer struct {
	etc, run string
	// SetHostname tells the kernel; nil where the name of the machine is not ours to set.
	SetHostname func(string) error

	mu       sync.Mutex
	hostname string // the last ones written: the hosts file holds both
	eventsIP string
	written  map[string]string // by path
}

// NewWriter returns a writer that has not written anything.
func NewWriter(etc, run string) *Writer {
	return &Writer{etc: etc, run: run, written: map[string]string{}}
}

// Mark leaves the file by which programs see that they are in a sandbox.
func (w *Writer) Mark() error { return w.marker(".E2B_SANDBOX", "true") }

// Apply writes what is set. Files are replaced as a whole.
func (w *Writer) Apply(i Identity) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(w.applyIDs(i), w.applyHost(i)); err != nil {
		return err
	}
	if i.DNSServers != nil {
		var lines strings.Builder
		for _, server := range i.DNSServers {
			lines.WriteString("nameserver " + server + "\n")
		}
		if err := w.write(filepath.Join(w.etc, "resolv.conf"), lines.String()); err != nil {
			return err
		}
	}
	if i.CABundle != nil {
		return w.trust(*i.CABundle)
	}
	return nil
}

func (w *Writer) applyIDs(i Identity) error {
	if i.SandboxID != nil {
		if err := w.marker(".E2B_SANDBOX_ID", *i.SandboxID); err != nil {
			return err
		}
	}
	if i.TemplateID != nil {
		if err := w.marker(".E2B_TEMPLATE_ID", *i.TemplateID); err != nil {
			return err
		}
	}
	if i.MachineID != nil {
		return w.write(filepath.Join(w.etc, "machine-id"), *i.MachineID+"\n")
	}
	return nil
}

func (w *Writer) applyHost(i Identity) error {
	if i.Hostname == nil && i.EventsIP == nil {
		return nil
	}
	if i.EventsIP != nil {
		w.eventsIP = *i.EventsIP
	}
	if i.Hostname != nil {
		w.hostname = *i.Hostname
		if w.SetHostname != nil {
			_ = w.SetHostname(w.hostname) // the runtime has usually set it and taken the right away
		}
		if err := w.write(filepath.Join(w.etc, "hostname"), w.hostname+"\n"); err != nil {
			return err
		}
	}
	lines := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if w.hostname != "" {
		lines += "127.0.1.1\t" + w.hostname + "\n"
	}
	if w.eventsIP != "" {
		lines += w.eventsIP + "\t" + EventsHost + "\n"
	}
	return w.write(filepath.Join(w.etc, "hosts"), lines)
}

func (w *Writer) marker(name, content string) error {
	if err := os.MkdirAll(w.run, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", w.run, err)
	}
	return w.write(filepath.Join(w.run, name), content)
}

// write leaves alone what it has written before, and what became of that.
func (w *Writer) write(path, content string) error {
	if before, found := w.written[path]; found && before == content {
		return nil
	}
	if err := replace(path, content); err != nil {
		return err
	}
	w.written[path] = content
	return nil
}

// trust puts certificates at the end of the system's bundle, in place of those of last time.
func (w *Writer) trust(certificates string) error {
	path := filepath.Join(w.etc, certificatesFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of certificates: %w", err)
	}
	bundle, err := readRegular(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if before, rest, found := bytes.Cut(bundle, []byte(beginMark)); found {
		_, after, _ := bytes.Cut(rest, []byte(endMark))
		bundle = append(before[:len(before):len(before)], after...)
	}
	text := string(bundle)
	if certificates != "" {
		text += beginMark + strings.TrimRight(certificates, "\n") + "\n" + endMark
	}
	return replace(path, text)
}

// readRegular opens without waiting: the sandbox may have put a FIFO there.
func readRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return io.ReadAll(io.LimitReader(file, maxBundleBytes))
}

// replace writes a file beside its place and renames it, which also takes the place of a
// symbolic link instead of following it. A file that the runtime has mounted cannot be
// renamed over and is written where it is.
func replace(path, content string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".guestd-")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = temporary.WriteString(content)
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(temporary.Name())
	if errors.Is(err, unix.EBUSY) {
		err = overwrite(path, content)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

func overwrite(path, content string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	return errors.Join(err, file.Close())
}
