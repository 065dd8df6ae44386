package account

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/bash\n# a comment\n\nuser:x:1000:1001:,,,:/home/user:/bin/bash\r\n" +
		"twin:x:1000:1001::/home/twin:/bin/sh\nbroken:x:abc:1::/:/bin/sh\nshort:x:1\nall-ones:x:4294967295:0::/:\n" +
		"+nis::::::\nrelative:x:7:7::home:/bin/sh\nnoshell:x:8:8::/h"
	groups = "root:x:0:\nuser:x:1001:\nsudo:x:27:other,user\ndocker:x:99:user\nagain:x:27:user\nbad:x:x:user\nempty:x:50:,\n"
)

func book(t testing.TB) (*Book, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/passwd", passwd)
	write(t, dir+"/group", groups)
	return New(dir+"/passwd", dir+"/group"), dir
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLookup(t *testing.T) {
	b, _ := book(t)
	user, err := b.Lookup("user")
	if err != nil || user.UID != 1000 || user.GID != 1001 || user.Home != "/home/user" || user.Shell != "/bin/bash" {
		t.Errorf("%+v %v", user, err)
	}
	if !slices.Equal(user.Groups, []uint32{1001, 27, 99}) {
		t.Errorf("groups %v", user.Groups)
	}
	for _, name := range []string{"", "nobody", "broken", "short", "all-ones", "+nis", "-1", "4294967295", "user:", "user:nobody-s", "# a comment"} {
		_, err := b.Lookup(name)
		var unknown *UnknownUserError
		if !errors.As(err, &unknown) || err.Error() != "invalid username: '"+name+"'" {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]User{
		"1000":      {Name: "user", UID: 1000, GID: 1001, Groups: []uint32{1001, 27, 99}},
		"1000:27":   {Name: "user", UID: 1000, GID: 27, Groups: []uint32{27}},
		"user:sudo": {Name: "user", UID: 1000, GID: 27, Groups: []uint32{27}},
		"4242":      {Name: "4242", UID: 4242, Groups: []uint32{0}},
		"4242:4243": {Name: "4242", UID: 4242, GID: 4243, Groups: []uint32{4243}},
		"0:0":       {Name: "root", Groups: []uint32{0}},
	} {
		got, err := b.Lookup(name)
		same := got.Name == want.Name && got.UID == want.UID && got.GID == want.GID && slices.Equal(got.Groups, want.Groups)
		if err != nil || !same {
			t.Errorf("%q: %+v %v", name, got, err)
		}
	}
	if relative, err := b.Lookup("relative"); err != nil || relative.Home != "/" {
		t.Errorf("%+v %v", relative, err)
	}
	if noshell, err := b.Lookup("noshell"); err != nil || noshell.Home != "/h" || noshell.Shell != "" {
		t.Errorf("%+v %v", noshell, err)
	}
}

func TestNames(t *testing.T) {
	b, _ := book(t)
	if b.UserName(1000) != "user" || b.UserName(4242) != "4242" || b.GroupName(27) != "sudo" || b.GroupName(4242) != "4242" {
		t.Error(b.UserName(1000), b.UserName(4242), b.GroupName(27), b.GroupName(4242))
	}
}

func TestChangesAreSeen(t *testing.T) {
	b, dir := book(t)
	if _, err := b.Lookup("new"); err == nil {
		t.Fatal("too early")
	}
	write(t, dir+"/new", "new:x:5:5::/new:/bin/sh\n")
	if err := os.Rename(dir+"/new", dir+"/passwd"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/group", "five:x:5:\n")
	if user, err := b.Lookup("new"); err != nil || user.UID != 5 || b.GroupName(5) != "five" {
		t.Errorf("%+v %v", user, err)
	}
}

func TestRootNeedsNoFile(t *testing.T) {
	dir := t.TempDir()
	b := New(dir+"/none", dir+"/none")
	if user, err := b.Lookup("root"); err != nil || user.UID != 0 || user.Home != "/root" {
		t.Errorf("%+v %v", user, err)
	}
	if b.UserName(0) != "root" || b.GroupName(0) != "root" {
		t.Error("root has no name")
	}
}

func TestHostileFilesDoNotHang(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/fifo", dir, "/dev/zero"} {
		if _, err := New(path, path).Lookup("user"); err == nil {
			t.Error(path)
		}
	}
	huge := filepath.Join(dir, "huge")
	write(t, huge, strings.Repeat("x:x:1:1::/:\n", maxFileBytes/12+1)+"late:x:1:1::/:\n")
	if _, err := New(huge, huge).Lookup("late"); err == nil {
		t.Error("read beyond the limit")
	}
}

func TestResolve(t *testing.T) {
	user := User{Name: "user", Home: "/home/user"}
	for _, c := range []struct{ path, workdir, want string }{
		{"", "", "/home/user"}, {"", "/work", "/work"}, {"", "~/w", "/home/user/w"}, {"", "w", "/home/user/w"},
		{"~", "/work", "/home/user"}, {"~/a/../b", "", "/home/user/b"}, {"~/", "", "/home/user"},
		{"a/b", "/work", "/home/user/a/b"}, {"./a/", "", "/home/user/a"}, {"../other", "", "/home/other"},
		{"/abs/../as/is/", "", "/abs/../as/is/"}, {"a~b", "", "/home/user/a~b"}, {"../../../..", "", "/"},
	} {
		if got, err := user.Resolve(c.path, c.workdir); err != nil || got != c.want {
			t.Errorf("%q in %q: %q %v", c.path, c.workdir, got, err)
		}
	}
	for _, path := range []string{"~other", "~other/x", "a\x00b"} {
		var wrong *PathError
		if _, err := user.Resolve(path, ""); !errors.As(err, &wrong) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestRequestedName(t *testing.T) {
	for header, want := range map[string]string{
		"Basic dXNlcjo=": "user", "basic dXNlcjpwYXNz": "user", "Basic dXNlcg==": "user", "Basic Og==": "",
		"Basic !!!": "", "Bearer x": "", "": "", "Basic": "", "Basic  dXNlcjo=": "user",
	} {
		if got := RequestedName(http.Header{"Authorization": {header}}); got != want {
			t.Errorf("%q: %q", header, got)
		}
	}
	b, _ := book(t)
	if user, err := b.ForRequest(http.Header{}, "user"); err != nil || user.Name != "user" {
		t.Error(user, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(passwd), []byte(groups))
	f.Fuzz(func(t *testing.T, users, entries []byte) {
		all := parseGroup(entries)
		for _, user := range parsePasswd(users) {
			if user.Name == "" || user.Home == "" || user.Home[0] != '/' || user.UID == 1<<32-1 {
				t.Fatalf("%+v", user)
			}
			if len(supplementary(user, all)) > maxGroups {
				t.Fatal("too many groups")
			}
		}
	})
}

func FuzzResolve(f *testing.F) {
	f.Fuzz(func(t *testing.T, path, workdir string) {
		got, err := User{Home: "/home/user"}.Resolve(path, workdir)
		if err == nil && (got == "" || got[0] != '/' || strings.ContainsRune(got, 0)) {
			t.Fatalf("%q in %q: %q", path, workdir, got)
		}
	})
}
