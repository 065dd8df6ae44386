#!/bin/bash
# The last touch of every built-in template: finish.sh ROOT STAMP. Mount points, caches, times; STAMP is a file that is
# older than whatever this build made.
set -euo pipefail
root=${1:?} stamp=${2:?}

# Mount points. /dev is the runtime's business: the image has no say in it, so it brings no node.
rm -rf "${root:?}"/{dev,run,tmp} "$root"/var/tmp
mkdir -p "$root"/{.warren,dev/pts,dev/shm,dev/mqueue,proc,sys,run/lock,tmp,var/tmp}
chmod 1777 "$root"/tmp "$root"/var/tmp "$root"/run/lock
: > "$root"/tmp/.keep # gVisor lays a tmpfs, paid in memory, over an empty /tmp

# What a sandbox gets of its own at start: ordinary files, never links, so that nothing can be led astray through them.
for file in hostname hosts resolv.conf machine-id; do
  rm -f "$root/etc/$file"
  : > "$root/etc/$file"
done
printf 'sandbox\n' > "$root"/etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\tsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n' > "$root"/etc/hosts
chmod 0644 "$root"/etc/{hostname,hosts,resolv.conf,machine-id}

# Caches, logs and what differs from build to build.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
rm -rf "$root"/var/cache/{debconf,ldconfig,man}/* "$root"/var/log/* "$root"/var/lib/dpkg/*-old
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f "$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$root"/etc/.pwd.lock
rm -f "$root"/var/lib/systemd/random-seed "$root"/etc/ssh/ssh_host_*
mkdir -p "$root"/var/lib/apt/lists/partial

# Times: all that this build made gets the time of the newest package file, so that two builds from the same packages
# are alike. Packages' own times stay: Python's byte code is tied to them.
newest=$(find "$root/var/lib/dpkg/info" "$root/usr" -xdev -type f ! -newer "$stamp" -printf '%T@\n' \
  | sort -n | tail -n 1 | cut -d. -f1)
find "$root" -xdev -newer "$stamp" -exec touch --no-dereference --date="@$newest" {} +
