package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"warren.dev/guestd/internal/account"
)

// entry is one of an archive: a folder ends with a slash, a link names its target.
type entry struct {
	name, content, link string
	kind                byte
	mode                int64
}

func archiveOf(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var content bytes.Buffer
	writer := tar.NewWriter(&content)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), Linkname: e.link, Typeflag: e.kind}
		if header.Typeflag == 0 {
			header.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				header.Typeflag = tar.TypeDir
			}
		}
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &content
}

func newService(t *testing.T) *Service {
	t.Helper()
	etc := t.TempDir()
	for name, content := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nbob:x:1234:1235::/home/bob:/bin/sh\n", "group": "staff:x:50:\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Service{book: account.New(filepath.Join(etc, "passwd"), filepath.Join(etc, "group")), root: t.TempDir()}
}

// below lists files with their content, and empty folders.
func below(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		case d.IsDir():
			names, err := readNames(path)
			if len(names) == 0 {
				found[name] = "/"
			}
			return err
		}
		content, err := os.ReadFile(path)
		found[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func me() string { return "0" }

func TestWhereACopyGoes(t *testing.T) {
	one := []entry{{name: "a.txt", content: "A"}}
	folder := []entry{{name: "app/"}, {name: "app/x", content: "X"}, {name: "app/deep/"}, {name: "app/deep/y", content: "Y"}}
	all := append([]entry{{name: "./"}, {name: "a.txt", content: "A"}}, folder...)
	two := []entry{{name: "d/a.py", content: "A"}, {name: "d/b.py", content: "B"}}
	for name, c := range map[string]struct {
		src, dest string
		before    string // a folder that is there
		entries   []entry
		want      map[string]string
	}{
		"a file to a path":           {"a.txt", "/new/b.txt", "", one, map[string]string{"/new/b.txt": "A"}},
		"a file into a folder":       {"a.txt", "/there", "/there", one, map[string]string{"/there/a.txt": "A"}},
		"a file to a slash":          {"./a.txt", "/new/", "", one, map[string]string{"/new/a.txt": "A"}},
		"a nested file":              {"d/a.py", "/x", "", two, map[string]string{"/x": "A"}},
		"a folder is merged":         {"app", "/there", "/there", folder, map[string]string{"/there/x": "X", "/there/deep/y": "Y"}},
		"a folder with a slash":      {"app/", "/new/", "", folder, map[string]string{"/new/x": "X", "/new/deep/y": "Y"}},
		"everything":                 {".", "/w", "", all, map[string]string{"/w/a.txt": "A", "/w/app/x": "X", "/w/app/deep/y": "Y"}},
		"a pattern":                  {"d/*.py", "/w", "", two, map[string]string{"/w/a.py": "A", "/w/b.py": "B"}},
		"a pattern that finds one":   {"*.txt", "/w", "", one, map[string]string{"/w": "A"}},
		"a pattern that finds a dir": {"ap*", "/w", "", folder, map[string]string{"/w/x": "X", "/w/deep/y": "Y"}},
		"any depth":                  {"app/**", "/w", "", folder, map[string]string{"/w/x": "X", "/w/deep/y": "Y"}},
		"an empty folder":            {"e", "/w", "", []entry{{name: "e/"}}, map[string]string{"/w": "/"}},
		"a link":                     {"l", "/w/l", "", []entry{{name: "l", link: "/etc", kind: tar.TypeSymlink}}, map[string]string{"/w/l": "-> /etc"}},
		"a hard link": {"h", "/w", "", []entry{
			{name: "h/"}, {name: "h/a", content: "A"}, {name: "h/b", link: "h/a", kind: tar.TypeLink},
		}, map[string]string{"/w/a": "A", "/w/b": "A"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			if c.before != "" {
				if err := os.MkdirAll(s.root+c.before, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.copyIn(c.src, c.dest, me(), "", archiveOf(t, c.entries...)); err != nil {
				t.Fatal(err)
			}
			if found := below(t, s.root); !maps.Equal(found, c.want) {
				t.Errorf("got %v, want %v", found, c.want)
			}
		})
	}
}

func TestWhatIsThereIsReplacedButNotFolders(t *testing.T) {
	s := newService(t)
	victim := filepath.Join(t.TempDir(), "victim")
	for _, err := range []error{
		os.WriteFile(victim, []byte("mine"), 0o644), os.Symlink(victim, s.root+"/b"), os.Mkdir(s.root+"/d", 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.copyIn("a", "/b", me(), "", archiveOf(t, entry{name: "a", content: "new"})); err != nil {
		t.Fatal(err)
	}
	if content, _ := os.ReadFile(victim); string(content) != "mine" {
		t.Error("the link was followed")
	}
	if err := s.copyIn("d", "/", me(), "", archiveOf(t, entry{name: "d/"}, entry{name: "d/d", content: "x"})); !isFault(err) {
		t.Errorf("a file over a folder: %v", err)
	}
}

func TestOwnerAndMode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	for user, want := range map[string]owner{
		"bob": {1234, 1235}, "bob:staff": {1234, 50}, "7": {7, 7}, "7:8": {7, 8}, "root": {0, 0},
	} {
		s := newService(t)
		if found, err := s.ownerOf(user); err != nil || found != want {
			t.Errorf("%s: %v %v", user, found, err)
		}
	}
	s := newService(t)
	err := s.copyIn("d", "/new/d", "bob", "4750", archiveOf(t, entry{name: "d/"}, entry{name: "d/f", content: "x", mode: 0o644}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/new/d/f", "/new/d"} {
		info, err := os.Stat(s.root + name)
		if err != nil || info.Mode().Perm() != 0o750 || info.Mode()&os.ModeSetuid == 0 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

func isFault(err error) bool {
	var known *fault
	return errors.As(err, &known)
}

func TestWhatIsRefused(t *testing.T) {
	file := entry{name: "a", content: "A"}
	for name, c := range map[string]struct {
		src, dest, user, mode string
		entries               []entry
	}{
		"a way out":       {".", "/w", "0", "", []entry{{name: "../x", content: "x"}}},
		"a long way out":  {".", "/w", "0", "", []entry{{name: "a/../../x", content: "x"}}},
		"an absolute one": {".", "/w", "0", "", []entry{{name: "/etc/x", content: "x"}}},
		"a device":        {".", "/w", "0", "", []entry{{name: "null", kind: tar.TypeChar}}},
		"a pipe":          {".", "/w", "0", "", []entry{{name: "p", kind: tar.TypeFifo}}},
		"a link to what is not there": {".", "/w", "0", "", []entry{
			{name: "l", link: "../../etc/passwd", kind: tar.TypeLink},
		}},
		"another name":   {"b", "/w", "0", "", []entry{file}},
		"no user":        {"a", "/w", "nobody-here", "", []entry{file}},
		"no group":       {"a", "/w", "root:nobody-here", "", []entry{file}},
		"no mode":        {"a", "/w", "0", "9", []entry{file}},
		"too much mode":  {"a", "/w", "0", "17777", []entry{file}},
		"a relative one": {"a", "w", "0", "", []entry{file}},
	} {
		s := newService(t)
		if err := s.copyIn(c.src, c.dest, c.user, c.mode, archiveOf(t, c.entries...)); !isFault(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newService(t)
	for _, junk := range []string{"junk that is no archive at all, and long enough", "\x1f\x8bjunk", ""} {
		if err := s.copyIn("a", "/w", "0", "", strings.NewReader(junk)); !isFault(err) {
			t.Errorf("%q: %v", junk, err)
		}
	}
}

func TestAnArchiveThatEndsTooEarlyIsRefused(t *testing.T) {
	whole := archiveOf(t, entry{name: "a", content: strings.Repeat("x", 5000)}).Bytes()
	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, _ = writer.Write(whole)
	_ = writer.Close()
	for _, content := range [][]byte{whole[:3000], zipped.Bytes()[:zipped.Len()-20]} {
		s := newService(t)
		if err := s.copyIn("a", "/w", "0", "", bytes.NewReader(content)); !isFault(err) {
			t.Errorf("got %v", err)
		}
	}
	s := newService(t)
	if err := s.copyIn("a", "/w", "0", "", bytes.NewReader(zipped.Bytes())); err != nil {
		t.Error(err)
	}
}

// FuzzCopy: whatever the archive says, nothing is made outside of the root.
func FuzzCopy(f *testing.F) {
	f.Add("a", "/w", "a", "")
	f.Add(".", "/w/", "../../x", "/etc")
	f.Add("*", "/", "l", "..")
	f.Fuzz(func(t *testing.T, src, dest, name, link string) {
		outer := t.TempDir()
		s := newService(t)
		s.root = filepath.Join(outer, "root")
		if err := os.Mkdir(s.root, 0o755); err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		writer := tar.NewWriter(&content)
		header := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: 1}
		if writer.WriteHeader(header) != nil {
			return
		}
		_, _ = writer.Write([]byte("x"))
		_ = writer.WriteHeader(&tar.Header{Name: name + "2", Linkname: link, Typeflag: tar.TypeLink})
		_ = writer.Close()
		_ = s.copyIn(src, dest, "0", "", &content)
		names, err := readNames(outer)
		if err != nil || !slices.Equal(names, []string{"root"}) {
			t.Errorf("outside: %v %v", names, err)
		}
	})
}
