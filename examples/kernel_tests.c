// SPDX-License-Identifier: Apache-2.0
/*
 * 50 tests of a small kernel (examples/guest/kernel), which boots once. Each test runs in a copy of
 * the machine that has just booted: one may use up all memory, destroy the heap or never come back,
 * and the next one finds everything as it was.
 *
 *      kernel_tests
 *      kernel_tests --jobs 4 'heap_*'
 *      kernel_tests --help
 *
 * It prints TAP, and looks for guest/kernel.elf beside the program.
 */
#include <ramet/harness.h>

RAMET_GUEST(.kernel = "guest/kernel.elf", .memory_bytes = 16 << 20,
            .ready_console = "kernel: ready\n");

/* A case of few words: what is typed, and what the kernel answers. */
#define SAYS(name, typed, answer)                                                                  \
        RAMET_CASE(name)                                                                           \
        {                                                                                          \
                ramet_console_send(t, typed "\n");                                                 \
                ramet_expect_console(t, "> " answer "\n> ");                                       \
        }

SAYS(calc_number, "calc 7", "= 7")
SAYS(calc_sum, "calc 1 + 2 + 3", "= 6")
SAYS(calc_difference, "calc 10 - 4 - 3", "= 3")
SAYS(calc_precedence, "calc 2 + 3 * 4", "= 14")
SAYS(calc_parentheses, "calc (2 + 3) * 4", "= 20")
SAYS(calc_nested, "calc ((1 + 2) * (3 + 4)) * 2", "= 42")
SAYS(calc_minus, "calc 3 * -2", "= -6")
SAYS(calc_division, "calc 7 / 2", "= 3")
SAYS(calc_remainder, "calc 7 % 4", "= 3")
SAYS(calc_wraps, "calc 9223372036854775807 + 1", "= -9223372036854775808")
SAYS(calc_division_by_zero, "calc 1 / (2 - 2)", "error: division by zero")
SAYS(calc_least_by_minus_one, "calc (-9223372036854775807 - 1) / -1", "= -9223372036854775808")
SAYS(calc_open_parenthesis, "calc (1 + 2", "error: expected )")
SAYS(calc_two_numbers, "calc 1 2", "error: expected an operator")
SAYS(calc_nothing, "calc", "error: expected a number")
SAYS(calc_too_deep, "calc ((((((((((((((((((((((((((((((((1", "error: too deep")

SAYS(file_is_read_back, "write a hello, world\ncat a", "hello, world")
SAYS(file_is_replaced, "write a one\nwrite a two\ncat a", "two")
SAYS(file_grows, "write a one\nappend a , two\ncat a", "one, two")
SAYS(file_is_removed, "write a one\nremove a\ncat a", "error: no such file")
SAYS(file_is_renamed, "write a one\nrename a b\ncat b", "one")
SAYS(file_rename_keeps_others, "write a 1\nwrite b 2\nrename a b", "error: file exists")
SAYS(files_are_listed, "write a one\nwrite b three\nls", "a 3\nb 5")
SAYS(file_names_end, "write sixteen.letters. x", "error: name too long")
SAYS(file_without_name, "cat", "error: no such file")
SAYS(file_missing, "append nothing more", "error: no such file")
SAYS(file_frees_its_text, "write a one\nremove a\nheap", "0 bytes used, 1 free blocks")

SAYS(tasks_none, "run", "idle")
SAYS(tasks_by_priority, "task 2 c\ntask 0 a\ntask 1 b\nrun", "a b c idle")
SAYS(tasks_of_a_kind_in_order, "task 1 x\ntask 1 y\ntask 1 z\nrun", "x y z idle")
SAYS(tasks_run_once, "task 0 a\nrun\nrun", "idle")
SAYS(task_names_end, "task 0 sixteen.letters.", "error: name too long")

SAYS(command_unknown, "frobnicate", "error: no such command")
SAYS(heap_begins_empty, "heap", "0 bytes used, 1 free blocks")
SAYS(heap_gives_no_nothing, "alloc 0", "error: no memory")
SAYS(heap_rounds_up, "alloc 1\nheap", "16 bytes used, 1 free blocks")
SAYS(heap_is_finite, "alloc 65536", "error: no memory")
SAYS(heap_used_up, "fill\nwrite a text", "64 blocks\n> error: no memory")
SAYS(heap_blocks_follow, "alloc 64\nalloc 64", "block 96")
SAYS(heap_reuses_blocks, "alloc 64\nalloc 64\nfree 16\nalloc 32", "block 16")
SAYS(heap_merges_blocks, "alloc 64\nalloc 64\nfree 96\nfree 16\nheap",
     "0 bytes used, 1 free blocks")

/* Something in the kernel has written where it should not. */
RAMET_CASE(heap_sees_damage)
{
        char junk[32] = "";

        ramet_put(t, "heap", junk, sizeof junk);
        ramet_console_send(t, "alloc 1\n");
        ramet_expect_console(t, "panic: heap: a block was overwritten");
        ramet_expect_status(t, 3);
}

/* It takes 49 days to get there, or a write to the kernel's variable. */
RAMET_CASE(uptime_is_more_than_32_bits)
{
        uint64_t then = 1ull << 32, now;

        ramet_put(t, "uptime_ms", &then, sizeof then);
        ramet_console_send(t, "uptime\n");
        ramet_expect_console(t, "> up 429496");
        ramet_get(t, "uptime_ms", &now, sizeof now);
        ramet_expect(t, now >= then);
}

/* Interrupts are off, and it never comes back. */
RAMET_CASE(hang_is_ended_by_a_limit)
{
        struct ramet_limits limits = {.run_ns = 100 * RAMET_MILLISECOND};

        ramet_vm_set_limits(ramet_test_vm(t), &limits);
        ramet_console_send(t, "hang\n");
        ramet_expect_exit(t, RAMET_EXIT_LIMIT);
}

/* Cases that only type a command, and the machine ends. */
#define ENDS(name, typed, how)                                                                     \
        RAMET_CASE(name)                                                                           \
        {                                                                                          \
                ramet_console_send(t, typed "\n");                                                 \
                how;                                                                               \
        }

ENDS(heap_sees_a_block_freed_twice, "alloc 64\nfree 16\nfree 16", ramet_expect_status(t, 3))
ENDS(heap_sees_a_wild_pointer, "free 4096", ramet_expect_status(t, 3))
ENDS(trap_is_reported, "trap", ramet_expect_status(t, 0x7e))
ENDS(triple_fault, "crash", ramet_expect_exit(t, RAMET_EXIT_CRASH))
ENDS(power_off, "off", ramet_expect_exit(t, RAMET_EXIT_POWEROFF))
ENDS(reset_line, "reset", ramet_expect_exit(t, RAMET_EXIT_REBOOT))

RAMET_MAIN()
