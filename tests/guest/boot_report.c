// SPDX-License-Identifier: Apache-2.0
/*
 * Proves a boot protocol: prints what it handed over and ends by the debug-exit port with exit=N
 * (0x2a). Linked as mb_exit.elf (multiboot v1, ELF32), bzimage.bin and elf64.elf (Linux 64-bit
 * protocol) and pvh.elf.
 *
 *      boot: cmdline=...
 *      boot: protocol=multiboot mem_lower=639 mem_upper=130048 ram_end=8000000 module=12
 * bytes=68656c
 *
 * ram_end is where the RAM that holds 1 MiB ends, by the memory map; bytes are the first 32 of the
 * module or initramfs, in hexadecimal; mem_lower and mem_upper are 0 but for multiboot.
 */
#include "rt/rt.h"

#define BYTES 32

static void say(const char *s) /* of any length */
{
        for (; *s; s++)
                serial_write(s, 1);
}

void guest_main(void)
{
        static const char *const protocols[] = {"pvh", "multiboot", "linux64"};
        const uint8_t *module = (const uint8_t *)boot.module;
        char hex[2 * BYTES + 1];
        unsigned n = 0;

        for (; n < BYTES && n < boot.module_len; n++) {
                hex[2 * n] = "0123456789abcdef"[module[n] >> 4];
                hex[2 * n + 1] = "0123456789abcdef"[module[n] & 15];
        }
        hex[2 * n] = 0;
        say("boot: cmdline=");
        say(boot.cmdline);
        say("\n");
        printf("boot: protocol=%s mem_lower=%u mem_upper=%u ram_end=%lx module=%lu bytes=%s\n",
               protocols[boot.kind], boot.mem_lower, boot.mem_upper, boot.ram_end, boot.module_len,
               hex);
        guest_exit((unsigned)cmd_u64("exit", 0x2a));
}
