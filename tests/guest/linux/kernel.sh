#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kernel.sh WORK OUT: build the test guest's kernel in the empty folder WORK, and leave vmlinux (an
# ELF file with the PVH note, stripped), System.map and gen_init_cpio in the folder OUT. Says on
# standard error how far it is. build.sh calls this with a lock held, and publishes OUT.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
work=$1 out=$2
tarball=${RAMET_LINUX_TARBALL:-/usr/src/linux-source-6.1.tar.xz}
log=$work/log
total=1080 # objects to compile, for the progress line only

say() { printf 'linux  %s\n' "$*" >&2; }

fail() {
	say "$1"
	[ ! -s "$log" ] || { say "the last lines of its output:"; tail -n 15 "$log" >&2; }
	exit 1
}

# The command line in the kernel, in front of the user's. Some are for hosts that run the guest's
# kernel mode in an emulator with gaps; the rest keep the boot short. README.md explains each.
# shellcheck disable=SC2054 # the commas are clearcpuid's
cmdline=(
	console=ttyS0
	nopv
	clearcpuid=smap,smep,pcid,invpcid,fsgsbase,popcnt,rdrand,rdseed,cx16,movbe,erms,fsrm,rep_good,clflushopt,clwb,serialize
	noxsave
	noreplace-smp
	mitigations=off
	tsc=reliable
	no_timer_check
	loglevel=3
	pci=off
	percpu_alloc=page
	rodata=off
	dhash_entries=2048 ihash_entries=2048 mhash_entries=256 mphash_entries=256
	thash_entries=256 uhash_entries=256
)

# Everything but what no build of ours compiles: a third of the disk, and sooner done.
unpack() {
	say "unpacking $(basename "$tarball")"
	tar -C "$work" --strip-components=1 -xf "$tarball" --wildcards-match-slash \
		--exclude='*/arch/[!x]*/*.[chS]' --exclude='*/arch/*.dts*' \
		--exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]' \
		--exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' \
		--exclude='*/drivers/staging/*.[ch]' --exclude='*/sound/*.[ch]' \
		--exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' \
		--exclude='*/tools/testing/*' --exclude='*/tools/perf/*' > "$log" 2>&1 ||
		fail "cannot unpack $tarball"
	local patch
	for patch in "$here"/*.patch; do
		patch -d "$work" -p1 -s -F0 < "$patch" >> "$log" 2>&1 ||
			fail "$(basename "$patch") does not apply"
	done
}

# Kconfig drops a wish that it cannot grant without a word, so look at each afterwards.
configure() {
	say "configuring"
	local want name
	{ cat "$here/config"; echo "CONFIG_CMDLINE=\"${cmdline[*]}\""; } > "$work/wanted"
	make -C "$work" KCONFIG_ALLCONFIG=wanted allnoconfig > "$log" 2>&1 ||
		fail "make allnoconfig failed"
	grep '^CONFIG_' "$work/wanted" | while IFS= read -r want; do
		name=${want%%=*}
		if [ "${want#*=}" = n ]; then
			! grep -q "^$name=" "$work/.config" || fail "$name is set, and should not be"
		else
			grep -qxF -- "$want" "$work/.config" || fail "$name did not become ${want#*=}"
		fi
	done
}

compile() {
	local pid done_ start=$SECONDS ticks=0
	export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
	export KBUILD_BUILD_USER=ramet KBUILD_BUILD_HOST=ramet
	nice make -C "$work" -j"${JOBS:-$(nproc)}" vmlinux > "$log" 2>&1 &
	pid=$!
	trap 'kill "$pid" 2> /dev/null; wait; exit 130' INT TERM
	while kill -0 "$pid" 2> /dev/null; do
		sleep 1
		if ((++ticks % 4 == 0)); then
			done_=$(grep -cE '^  (CC|AS) ' "$log" || true)
			say "compiling: $done_ of ~$total files, $((SECONDS - start)) s"
		fi
	done
	wait "$pid" || fail "the kernel does not compile"
	trap - INT TERM
}

unpack
configure
compile
strip -s -o "$out/vmlinux" "$work/vmlinux"
cp "$work/System.map" "$work/usr/gen_init_cpio" "$out/"
readelf -n "$out/vmlinux" | grep -q Xen || fail "vmlinux has no PVH note"
say "kernel ready after $SECONDS s"
