package build

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func writeTree(t *testing.T, root string, since int64, keep ...string) []string {
	t.Helper()
	var content bytes.Buffer
	out := bufio.NewWriter(&content)
	w := &treeWriter{root: root, out: out, since: since, keep: map[string]bool{}, links: map[inode]string{}, block: make([]byte, 10)}
	for _, name := range keep {
		w.keep[name] = true
	}
	if err := w.folder(""); err != nil {
		t.Fatal(err)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	return readTree(t, content.Bytes())
}

// readTree shows each record on a line.
func readTree(t *testing.T, content []byte) []string {
	t.Helper()
	const headBytes = 33
	var lines []string
	for len(content) > 0 {
		kind, mode := content[0], binary.BigEndian.Uint32(content[1:])
		size := binary.BigEndian.Uint64(content[21:])
		name, target := int(binary.BigEndian.Uint16(content[29:])), int(binary.BigEndian.Uint16(content[31:]))
		rest := content[headBytes:]
		line := strings.TrimSpace(fmt.Sprintf("%c %s %s", kind, rest[:name], rest[name:name+target]))
		content = rest[name+target:]
		if kind == kindFile {
			line += fmt.Sprintf(" %o %s", mode, content[:size])
			content = content[size:]
		}
		lines = append(lines, line)
	}
	return lines
}

func TestATreeIsWrittenInOrder(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.Mkdir(root+"/b", 0o755),
		os.WriteFile(root+"/b/file", []byte("longer than a block"), 0o640),
		os.Link(root+"/b/file", root+"/b/other"),
		os.WriteFile(root+"/a", nil, 0o600),
		os.Symlink("/nowhere", root+"/c"),
		syscall.Mkfifo(root+"/p", 0o600),
		os.Mkdir(root+"/run", 0o755),
		os.WriteFile(root+"/run/own", nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"D", "F a 600", "D b", "F file 640 longer than a block", "H other b/file", "U", "L c /nowhere", "P p",
		"K run", "U",
	}
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
	}
	got := writeTree(t, root, 0, "/run")
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWhatDidNotChangeComesWithoutContent(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(root+"/old", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Unix(1, 0)
	if err := os.Chtimes(filepath.Join(root, "old"), past, past); err != nil {
		t.Fatal(err)
	}
	if got := writeTree(t, root, time.Now().Add(time.Hour).UnixNano()); !slices.Equal(got, []string{"D", "S old", "U"}) {
		t.Errorf("got %q", got)
	}
	if got := writeTree(t, root, time.Now().Add(-time.Hour).UnixNano()); !slices.Equal(got, []string{"D", "F old 600 x", "U"}) {
		t.Errorf("a time that was set hides a change: %q", got)
	}
}

func TestMountPointsAreReadFromTheKernelsList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mounts")
	if err := os.WriteFile(file, []byte("none / overlay rw 0 0\nnone /proc proc rw 0 0\nx /a\\040b tmpfs rw 0 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := mountPoints(file)
	if err != nil || len(found) != 2 || !found["/proc"] || !found["/a b"] {
		t.Errorf("%v %v", found, err)
	}
}
