// Package account knows the users of the sandbox: who they are, and what a path means to them.
package account

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
)

// maxFileBytes bounds /etc/passwd and /etc/group, which the sandbox may fill at will.
const maxFileBytes = 4 << 20

// User is one line of the password file with the groups that the group file adds.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Home   string
	Shell  string
	Groups []uint32 // supplementary groups; begins with the primary one
}

// UnknownUserError says that a request named a user that the sandbox does not have.
type UnknownUserError struct{ Name string }

func (e *UnknownUserError) Error() string { return fmt.Sprintf("invalid username: '%s'", e.Name) }

// UnknownGroupError says that a request named a group that the sandbox does not have.
type UnknownGroupError struct{ Name string }

func (e *UnknownGroupError) Error() string { return fmt.Sprintf("invalid group: '%s'", e.Name) }

// Book answers questions about users from a password and a group file. It reads them
// again when they change, because packages add users while the sandbox runs.
type Book struct {
	passwdPath, groupPath string

	mu          sync.Mutex
	passwdStamp stamp
	groupStamp  stamp
	users       []User
	usersByID   map[uint32]string
	groups      []group
	groupsByID  map[uint32]string
}

// New returns a book over the two files, usually /etc/passwd and /etc/group.
func New(passwdPath, groupPath string) *Book {
	return &Book{passwdPath: passwdPath, groupPath: groupPath}
}

// Lookup finds a user as Docker's USER does: by name or number, with ":group" for that one
// group in place of all that the user has. The error is an *UnknownUserError.
func (b *Book) Lookup(name string) (User, error) {
	plain, group, grouped := strings.Cut(name, ":")
	user, err := b.lookupUser(plain)
	if err != nil || !grouped {
		return user, err
	}
	gid, err := b.GroupID(group)
	if err != nil {
		return User{}, &UnknownUserError{Name: name}
	}
	user.GID, user.Groups = gid, []uint32{gid}
	return user, nil
}

func (b *Book) lookupUser(name string) (User, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh()
	id, numeric := parseID(name)
	for _, byNumber := range []bool{false, true} {
		for _, user := range b.users {
			if user.Name == name || byNumber && numeric && user.UID == id {
				user.Groups = supplementary(user, b.groups)
				return user, nil
			}
		}
	}
	if numeric && id != 0 {
		// Nobody has this number: it may run all the same, with nothing of its own.
		return User{Name: name, UID: id, Home: "/", Shell: "/bin/sh", Groups: []uint32{0}}, nil
	}
	if name == "0" {
		name = "root"
	}
	if name == "root" {
		// An image may come without any password file; its root user exists all the same.
		return User{Name: "root", Home: "/root", Shell: "/bin/sh", Groups: []uint32{0}}, nil
	}
	return User{}, &UnknownUserError{Name: name}
}

// UserName is the name of a user id, or the id itself as text when it has none.
func (b *Book) UserName(uid uint32) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh()
	return nameOr(b.usersByID, uid)
}

// GroupName is the name of a group id, or the id itself as text when it has none.
func (b *Book) GroupName(gid uint32) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh()
	return nameOr(b.groupsByID, gid)
}

// GroupID is the id of a group given by name or as a number; the error is an *UnknownGroupError.
func (b *Book) GroupID(name string) (uint32, error) {
	if id, ok := parseID(name); ok {
		return id, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh()
	for _, entry := range b.groups {
		if entry.name == name {
			return entry.gid, nil
		}
	}
	if name == "root" {
		return 0, nil
	}
	return 0, &UnknownGroupError{Name: name}
}

func nameOr(names map[uint32]string, id uint32) string {
	if name, ok := names[id]; ok {
		return name
	}
	if id == 0 {
		return "root"
	}
	return fmt.Sprint(id)
}

// refresh reads what has changed. A file that cannot be read counts as empty: a sandbox
// that damages its own files loses its users, not the daemon.
func (b *Book) refresh() {
	if now := stampOf(b.passwdPath); now != b.passwdStamp || b.usersByID == nil {
		b.passwdStamp = now
		b.users = parsePasswd(readBounded(b.passwdPath))
		b.usersByID = make(map[uint32]string, len(b.users))
		for _, user := range b.users {
			if _, taken := b.usersByID[user.UID]; !taken {
				b.usersByID[user.UID] = user.Name
			}
		}
	}
	if now := stampOf(b.groupPath); now != b.groupStamp || b.groupsByID == nil {
		b.groupStamp = now
		b.groups = parseGroup(readBounded(b.groupPath))
		b.groupsByID = make(map[uint32]string, len(b.groups))
		for _, entry := range b.groups {
			if _, taken := b.groupsByID[entry.gid]; !taken {
				b.groupsByID[entry.gid] = entry.name
			}
		}
	}
}

// stamp tells one version of a file from another.
type stamp struct {
	inode        uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(path string) stamp {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return stamp{}
	}
	return stamp{inode: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

func readBounded(path string) []byte {
	// O_NONBLOCK: the sandbox may have put a FIFO there, and opening it must not hang.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes))
	if err != nil {
		return nil
	}
	return content
}
