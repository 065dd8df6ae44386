#!/bin/bash
# Turns base's tree, with the packages of packages.txt, into the code interpreter: customize.sh ROOT WORK.
# Python's packages are unpacked by uv on the host; whatever the image's own programs must do is done in a chroot.
set -euo pipefail
root=${1:?} work=${2:?}
recipe=$(dirname "${BASH_SOURCE[0]}")
home=$root/opt/code-interpreter
packages=$root/usr/local/lib/python3.11/dist-packages

unpack() { # unpack LIST TARGET
  "$UV" pip install --quiet --no-deps --require-hashes --only-binary :all: --link-mode copy \
    --python "$(command -v python3)" --python-version 3.11 --python-platform "$(uname -m)-manylinux_2_36" \
    --target "$2" --requirements "$recipe/$1"
}

# Python's packages: where `pip install` in a sandbox puts its own, which the sandbox's user may write.
unpack kernel.txt "$work/python"
sed -i "1s|^#!.*python.*|#!/usr/bin/python3|" "$work"/python/bin/*
cp -r "$work"/python/bin/. "$root"/usr/local/bin
mkdir -p "$home"
cp -r "$recipe/kernels" "$home/"
cp "$work"/python/share/jupyter/kernels/java/*.jar "$home/kernels/java/"
rm -rf "$work"/python/{bin,share,.lock}
cp -r "$work"/python/. "$packages"

# The server, in an environment of its own.
chroot "$root" python3 -m venv --without-pip /opt/code-interpreter/venv
unpack server.txt "$work/server"
rm -rf "$work"/server/{bin,share,.lock}
cp -r "$work"/server/. "$recipe"/server/code_interpreter "$home/venv/lib/python3.11/site-packages/"
install -m 0755 "$recipe/start" "$home/start"
install -D -m 0644 "$recipe/matplotlibrc" "$root/etc/matplotlibrc"
chown -R root:root "$home" "$packages"
find "$root"/usr/local -type d -exec chmod 0777 {} +
rm -rf "$root"/usr/lib/jvm/*/jmods # only `jlink` reads them

# Byte code last: it is tied to the times of the sources.
find "$home" "$packages" -name __pycache__ -prune -exec rm -rf {} +
newest=$(find "$root/var/lib/dpkg/info" -type f -printf '%T@\n' | sort -n | tail -n 1 | cut -d. -f1)
find "$home" "$packages" -exec touch --no-dereference --date="@$newest" {} +
chroot "$root" python3 -m compileall -q -j 0 /opt/code-interpreter /usr/local/lib/python3.11/dist-packages > /dev/null || true
# The list of fonts, which matplotlib would make at its first import.
chroot "$root" env HOME=/root MATPLOTLIBRC=/etc/matplotlibrc python3 -c 'import matplotlib.font_manager'
