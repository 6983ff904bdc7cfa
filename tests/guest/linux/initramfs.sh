#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# initramfs.sh GEN_INIT_CPIO OUT: write the test guest's initramfs, an uncompressed cpio, to the
# folder OUT. Uncompressed because the guest would pay for unpacking it; made by the kernel's
# gen_init_cpio because that makes device nodes without being root and puts no time in.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
gen=$1 out=$2

for program in ramet-fork ramet-work; do
	gcc -std=gnu17 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -I "$here/../../../include" \
		-static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
		-fcf-protection=none -fno-pie -no-pie -Wl,--build-id=none -s \
		-o "$out/$program" "$here/$program.c"
done

# A file that is missing must be an error, gen_init_cpio only grumbles.
for file in /bin/busybox "$here/init" "$here/fstab"; do
	[ -r "$file" ] || { echo "linux  $file is missing" >&2; exit 1; }
done

cat > "$out/list" <<EOF
dir /bin 755 0 0
dir /dev 755 0 0
dir /etc 755 0 0
dir /mnt 755 0 0
dir /proc 755 0 0
dir /sys 755 0 0
dir /tmp 1777 0 0
nod /dev/console 600 0 0 c 5 1
file /init $here/init 755 0 0
file /etc/fstab $here/fstab 644 0 0
file /bin/busybox /bin/busybox 755 0 0
slink /bin/sh busybox 777 0 0
file /bin/ramet-fork $out/ramet-fork 755 0 0
file /bin/ramet-work $out/ramet-work 755 0 0
EOF
"$gen" -t 0 "$out/list" > "$out/initramfs.cpio"
rm "$out/list" "$out/ramet-fork" "$out/ramet-work"
