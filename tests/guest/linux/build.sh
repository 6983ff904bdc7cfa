#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh: make the Linux test guest if it is not there yet, and print two paths as the last two
# lines: the kernel (vmlinux), then its initramfs. README.md in this folder says what they hold.
#
# Both are kept in the user's cache folder, each under a hash of all that goes into it, so that a
# new init does not mean a new kernel. A folder under its final name is complete: the work is done
# under another name, then renamed. A lock makes a second run wait for the first.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
include=$here/../../../include/ramet
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ramet

say() { printf 'linux  %s\n' "$*" >&2; }

version() {
	dpkg-query -W -f '${Version}\n' "$1" 2> /dev/null ||
		{ say "the Debian package $1 is not installed (tests/guest/linux/packages lists all it takes)"; exit 2; }
}

# hash TEXT FILE...: of the text and of the files' contents
hash() {
	local text=$1
	shift
	{ printf '%s\n' "$text"; cat -- "$@"; } | sha256sum | cut -c1-16
}

source_version=$(version linux-source-6.1)
busybox_version=$(version busybox-static)
kernel=$cache/linux-$(hash "$source_version" "$here"/kernel.sh "$here"/config "$here"/*.patch)
initramfs=$cache/linux-initramfs-$(hash "$busybox_version" "$here"/initramfs.sh "$here"/init \
	"$here"/fstab "$here"/bare.h "$here"/ramet-fork.c "$here"/ramet-work.c "$include"/fork_abi.h)

if [ ! -d "$kernel" ] || [ ! -d "$initramfs" ]; then
	mkdir -p "$cache"
	exec 9> "$cache/linux.lock"
	if ! flock -n 9; then
		say "waiting for another build"
		flock 9
	fi
	# With the lock held, an old temporary folder is what a killed build left behind.
	rm -rf "$cache"/linux-build.*
	work=$(mktemp -d "$cache/linux-build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	child=
	trap 'kill $child 2> /dev/null; wait; exit 130' INT TERM

	if [ ! -d "$kernel" ]; then
		mkdir "$work/tree" "$work/kernel"
		# In the background, since a shell waits for a foreground command before it heeds a trap.
		"$here/kernel.sh" "$work/tree" "$work/kernel" >&2 9>&- &
		child=$!
		wait "$child"
		child=
		mv -T "$work/kernel" "$kernel"
	fi
	if [ ! -d "$initramfs" ]; then
		mkdir "$work/initramfs"
		"$here/initramfs.sh" "$kernel/gen_init_cpio" "$work/initramfs" >&2 9>&-
		mv -T "$work/initramfs" "$initramfs"
		say "initramfs ready"
	fi
fi

printf '%s\n' "$kernel/vmlinux" "$initramfs/initramfs.cpio"
