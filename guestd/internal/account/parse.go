package account

import (
	"strconv"
	"strings"
)

type group struct {
	name    string
	gid     uint32
	members []string
}

// parsePasswd reads name:password:uid:gid:gecos:home:shell lines and skips what is not one.
func parsePasswd(content []byte) []User {
	var users []User
	for line := range strings.Lines(string(content)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(fields) < 6 || !isName(fields[0]) {
			continue
		}
		uid, uidOK := parseID(fields[2])
		gid, gidOK := parseID(fields[3])
		if !uidOK || !gidOK {
			continue
		}
		user := User{Name: fields[0], UID: uid, GID: gid, Home: fields[5]}
		if !strings.HasPrefix(user.Home, "/") || strings.ContainsRune(user.Home, 0) {
			user.Home = "/"
		}
		if len(fields) > 6 {
			user.Shell = fields[6]
		}
		users = append(users, user)
	}
	return users
}

// parseGroup reads name:password:gid:member,member lines and skips what is not one.
func parseGroup(content []byte) []group {
	var groups []group
	for line := range strings.Lines(string(content)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(fields) < 3 || !isName(fields[0]) {
			continue
		}
		gid, ok := parseID(fields[2])
		if !ok {
			continue
		}
		entry := group{name: fields[0], gid: gid}
		if len(fields) > 3 && fields[3] != "" {
			entry.members = strings.Split(fields[3], ",")
		}
		groups = append(groups, entry)
	}
	return groups
}

func isName(text string) bool {
	return text != "" && text[0] != '#' && text[0] != '+' && text[0] != '-'
}

// parseID refuses the all-ones id: setuid and chown take it for "leave as it is".
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, false
	}
	return uint32(id), true
}

// maxGroups is the kernel's NGROUPS_MAX: setgroups refuses a longer list.
const maxGroups = 65536

func supplementary(user User, groups []group) []uint32 {
	found := []uint32{user.GID}
	seen := map[uint32]bool{user.GID: true}
	for _, entry := range groups {
		if seen[entry.gid] || len(found) == maxGroups {
			continue
		}
		for _, member := range entry.members {
			if member == user.Name {
				seen[entry.gid] = true
				found = append(found, entry.gid)
				break
			}
		}
	}
	return found
}
