package process

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/state"
)

// defaultPath serves images whose runtime configuration names no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command is a request made ready for the kernel.
type command struct {
	name string // as the client wrote it
	argv []string
	env  []string
	path string // value of PATH in env
	dir  string
	user account.User
}

func newCommand(config *processpb.ProcessConfig, user account.User, set state.Settings) (*command, error) {
	dir, err := user.Resolve(config.GetCwd(), set.DefaultWorkdir)
	if err != nil {
		return nil, err
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if config.GetCmd() == "" {
		return nil, errors.New("cannot start a process without a command; set cmd")
	}
	variables := environment(user, set, config.GetEnvs())
	cmd := &command{
		name: config.GetCmd(),
		argv: append([]string{config.GetCmd()}, config.GetArgs()...),
		path: variables["PATH"],
		dir:  dir,
		user: user,
	}
	for _, argument := range cmd.argv {
		if strings.ContainsRune(argument, 0) {
			return nil, errors.New("cannot pass a NUL byte in cmd or args; leave it out")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(variables[name], 0) {
			return nil, fmt.Errorf("cannot set the variable %q; names take no '=', nothing takes NUL", name)
		}
		cmd.env = append(cmd.env, name+"="+variables[name])
	}
	return cmd, nil
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("cwd '%s' does not exist", dir)
	case err != nil:
		return fmt.Errorf("cwd '%s' cannot be used: %w", dir, err)
	case !info.IsDir():
		return fmt.Errorf("cwd '%s' is not a directory", dir)
	}
	return nil
}

// environment joins the layers, the last one wins: the user's own, those of the sandbox,
// those that say which sandbox this is, those of the request.
func environment(user account.User, set state.Settings, request map[string]string) map[string]string {
	path := os.Getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	variables := map[string]string{"PATH": path, "HOME": user.Home, "USER": user.Name, "LOGNAME": user.Name}
	maps.Copy(variables, set.Envs)
	maps.Copy(variables, set.Identity())
	maps.Copy(variables, request)
	return variables
}

// executable finds the file that execvp would run for this user.
func (c *command) executable() (string, error) {
	if strings.ContainsRune(c.name, '/') {
		return c.name, nil
	}
	missing := error(syscall.ENOENT)
	for _, folder := range strings.Split(c.path, ":") {
		if folder == "" {
			folder = "."
		}
		candidate := folder + "/" + c.name
		onDisk := candidate
		if !filepath.IsAbs(onDisk) {
			onDisk = filepath.Join(c.dir, onDisk)
		}
		info, err := os.Stat(onDisk)
		if err != nil || info.IsDir() {
			continue
		}
		if !mayExecute(c.user, info) {
			missing = syscall.EACCES
			continue
		}
		return candidate, nil
	}
	return "", missing
}

// mayEnter says whether the user may search every folder on the way to dir and dir itself.
func mayEnter(user account.User, dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || !mayExecute(user, info) {
			return false
		}
		if dir == "/" || dir == "." {
			return true
		}
	}
}

// mayExecute applies the x bits as the kernel does, for a user who is not root.
func mayExecute(user account.User, info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode().Perm(); {
	case user.UID == 0 || !ok:
		return info.IsDir() || mode&0o111 != 0
	case owner.Uid == user.UID:
		return mode&0o100 != 0
	case owner.Gid == user.GID || slices.Contains(user.Groups, owner.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
