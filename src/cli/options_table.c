/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every option there is. One row serves getopt, --help, --config and the check that the manual page
 * leaves nothing out (tests/integration/test_cli_man.py). A default is text that goes through the
 * same parser as the user's, so the help cannot promise another one.
 */
#include <errno.h>
#include <stddef.h>

#include "cli/options.h"

#define FIELD(f) offsetof(struct options, f)
#define STRING   .json = OPTION_JSON_STRING

static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const seccomps[] = {"on", "log", "off", NULL};
static const char *const hugepages[] = {"auto", "on", "off", NULL};
static const char *const cows[] = {"private", "trap", "rom", NULL};

static const char *const virtios[] = {
        [VIRTIO_FOUND_ACPI] = "acpi",
        [VIRTIO_FOUND_CMDLINE] = "cmdline",
        NULL,
};

static int number(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_number(text, row->min, row->max, out, err);
}

static int size(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_size(text, row->min, row->max, out, err);
}

static int seconds(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_seconds(text, out, err);
}

static int hex(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_hex64(text, out, err);
}

static int string(const struct option_row *row, void *out, const char *text, struct err *err)
{
        *(const char **)out = text;
        return 0;
}

static int path(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return *text ? string(row, out, text, err) : err_input(err, "expected the path of a file");
}

static int name(const struct option_row *row, void *out, const char *text, struct err *err)
{
        int ret = parse_name(text, err);

        return ret ? ret : string(row, out, text, err);
}

static int fork_at(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_fork_at(text, out, err);
}

static int console(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_console(text, out, err);
}

static int flat(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_flat(text, out, err);
}

static int level(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_choice(text, levels, out, err);
}

static int seccomp(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_choice(text, seccomps, out, err);
}

static int hugepage(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_choice(text, hugepages, out, err);
}

static int cow(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_choice(text, cows, out, err);
}

static int disk(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_disk(text, out, err);
}

static int virtio(const struct option_row *row, void *out, const char *text, struct err *err)
{
        return parse_choice(text, virtios, out, err);
}

static int flag(const struct option_row *row, void *out, const char *text, struct err *err)
{
        *(bool *)out = true;
        return 0;
}

const struct option_row option_table[] = {
        {"kernel", 0, COMMAND_RUN, "FILE", NULL,
         "the kernel: a bzImage, an ELF vmlinux, or a multiboot kernel (must be given)", STRING,
         path, FIELD(kernel)},
        {"initramfs", 0, COMMAND_RUN, "FILE", NULL,
         "the initial RAM disk; a multiboot kernel gets it as its first module", STRING, path,
         FIELD(initramfs)},
        {"cmdline", 0, COMMAND_RUN, "TEXT", "", "the kernel's command line", STRING, string,
         FIELD(cmdline)},
        {"cpus", 0, COMMAND_RUN, "N", "1", "virtual CPUs", .json = OPTION_JSON_INTEGER, number,
         FIELD(cpus), 1, RAMET_VCPUS_MAX},
        {"cpus", 0, COMMAND_DEMO, "N", "2", "virtual CPUs", .json = 0, number, FIELD(cpus), 1,
         RAMET_VCPUS_MAX},
        {"memory", 0, COMMAND_RUN, "SIZE", "256M", "guest memory: 64M, 4GiB, ...",
         .json = OPTION_JSON_STRING | OPTION_JSON_INTEGER, size, FIELD(memory), RAMET_MEMORY_MIN,
         RAMET_MEMORY_MAX},
        {"memory", 0, COMMAND_DEMO, "SIZE", "128M", "guest memory: 128M, 4GiB, ...", .json = 0,
         size, FIELD(memory), RAMET_MEMORY_MIN, RAMET_MEMORY_MAX},
        {"name", 0, COMMAND_RUN, "NAME", NULL,
         "what to call the machine; its clones are NAME.1, NAME.2, ... (default: vm-PID)", STRING,
         name, FIELD(name)},
        {"console", 0, COMMAND_RUN, "WHERE", "stdio",
         "the serial console: stdio; file=PATH, where %c stands for the machine's name; or off. "
         "With virtio, or virtio: before one of these, it is a virtio console",
         STRING, console, FIELD(console)},
        {"disk", 0, COMMAND_RUN, "DISK", NULL,
         "path=FILE[,readonly=on|off][,serial=TEXT][,iops=N][,bandwidth=SIZE]: a disk with the "
         "contents of FILE; may be given 8 times",
         .json = OPTION_JSON_LIST, disk, FIELD(disks)},
        {"overlay", 0, COMMAND_RUN, "DIR", NULL,
         "keep what is written to disks after a fork in files of DIR (if not given: in memory)",
         STRING, path, FIELD(overlay)},
        {"rng", 0, COMMAND_RUN, NULL, NULL, "a source of random numbers, virtio-rng",
         .json = OPTION_JSON_BOOLEAN, flag, FIELD(rng)},
        {"virtio", 0, COMMAND_RUN, "HOW", "acpi",
         "how the guest finds its virtio devices: acpi or cmdline", STRING, virtio, FIELD(virtio)},
        {"fork", 0, COMMAND_RUN, "N", NULL, "fork the running machine, once, into N clones",
         .json = OPTION_JSON_INTEGER, number, FIELD(fork), 1, RAMET_CLONES_MAX},
        {"fork", 0, COMMAND_DEMO, "N", "4", "how many clones to make", .json = 0, number,
         FIELD(fork), 1, RAMET_CLONES_MAX},
        {"fork-at", 0, COMMAND_RUN, "WHEN", "guest",
         "when: guest (it rings the doorbell), console=TEXT (it has printed that), after=SECONDS, "
         "or signal (SIGUSR1 to this command)",
         STRING, fork_at, FIELD(fork_at)},
        {"fill", 0, COMMAND_DEMO, "MIB", "64", "how much memory the guest fills, in MiB", .json = 0,
         number, FIELD(fill_mib), 1, 2048},
        {"seed", 0, COMMAND_DEMO, "HEX", NULL,
         "what it fills it from, to repeat a run (default: random)", .json = 0, hex, FIELD(seed)},
        {"timeout", 0, COMMAND_RUN, "SECONDS", NULL, "end everything if it takes longer",
         .json = OPTION_JSON_NUMBER, seconds, FIELD(timeout_ns)},
        {"timeout", 0, COMMAND_DEMO, "SECONDS", "120", "end everything if it takes longer",
         .json = 0, seconds, FIELD(timeout_ns)},
        {"events", 0, COMMAND_RUN | COMMAND_DEMO, "FILE", NULL,
         "write what happens to FILE, as lines of JSON", STRING, path, FIELD(events)},
        {"log-level", 0, COMMAND_RUN | COMMAND_DEMO, "LEVEL", "warn",
         "say more on standard error: error, warn, info or debug", STRING, level, FIELD(log_level)},
        {"config", 0, COMMAND_RUN, "FILE", NULL,
         "take options from a JSON object with these names; the command line wins", .json = 0, path,
         FIELD(config)},
        {"debug-exit", 0, COMMAND_RUN, "PORT", NULL,
         "an isa-debug-exit device: writing V to PORT ends the guest with status (V << 1) | 1",
         .json = OPTION_JSON_STRING | OPTION_JSON_INTEGER, number, FIELD(debug_exit), 1, 0xffff},
        {"flat", 0, COMMAND_RUN, "ADDR[,BITS]", NULL,
         "the kernel is a flat binary: load it there, and enter it in 16, 32 or 64 bits (64)",
         STRING, flat, FIELD(flat)},
        {"seccomp", 0, COMMAND_RUN | COMMAND_DEMO, "MODE", "on",
         "allow a machine's process only the system calls it needs: on, log or off", STRING,
         seccomp, FIELD(seccomp)},
        {"hugepages", 0, COMMAND_RUN | COMMAND_DEMO, "MODE", "auto",
         "guest memory on huge pages: auto, on or off", STRING, hugepage, FIELD(hugepages)},
        {"cow", 0, COMMAND_RUN | COMMAND_DEMO, "ENGINE", "private",
         "what keeps a clone's writes from its template: private, trap or rom", STRING, cow,
         FIELD(cow)},
        {"pool", 0, COMMAND_RUN | COMMAND_DEMO, "N", NULL,
         "empty machines made ahead of time for clones to start in (default: as many as --fork "
         "asks for, at most 16)",
         .json = OPTION_JSON_INTEGER, number, FIELD(pool), 0, 1000},
        {"json", 0, COMMAND_LIST, NULL, NULL, "print a JSON array instead of a table", .json = 0,
         flag, FIELD(json)},
        {"json", 0, COMMAND_OVERLAY, NULL, NULL, "info: print a JSON object", .json = 0, flag,
         FIELD(json)},
        {"force", 0, COMMAND_OVERLAY, NULL, NULL,
         "export: replace IMAGE, and take the image below as it is now", .json = 0, flag,
         FIELD(force)},
        {"clones", 'n', COMMAND_FORK, "N", "1", "how many clones to make", .json = 0, number,
         FIELD(clones), 1, RAMET_CLONES_MAX},
        {"help", 'h', ~0u, NULL, NULL, "this text", .json = 0, flag, FIELD(help)},
};

const unsigned option_count = sizeof option_table / sizeof option_table[0];
_Static_assert(sizeof option_table / sizeof option_table[0] <= 64,
               "struct options.given has a bit each");
