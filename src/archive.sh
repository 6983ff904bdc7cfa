#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# libramet.a for others: archive.sh INSIDE SYMBOLS OUTPUT OBJCOPY AR CC...
#
# The objects of the archive INSIDE become one, in which only the names that the file SYMBOLS lists
# stay global: a program that links it may have a loop_create() or a vm_destroy() of its own.
set -eu

inside=$1 symbols=$2 output=$3 objcopy=$4 ar=$5
shift 5

"$@" -r -nostdlib -o "${output%.a}.o" -Wl,--whole-archive "$inside"
"$objcopy" --keep-global-symbols="$symbols" "${output%.a}.o"
rm -f "$output" # ar adds to what is there
"$ar" rcsD "$output" "${output%.a}.o"
rm -f "${output%.a}.o"
