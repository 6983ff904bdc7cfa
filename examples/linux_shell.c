// SPDX-License-Identifier: Apache-2.0
/*
 * 20 tests of a Linux guest's shell. Linux boots once, to its prompt; each test types a line on the
 * serial console of a copy and looks at what the shell answers. One may remove every program, or
 * power the machine off: the others do not notice.
 *
 *      linux_shell VMLINUX INITRAMFS [OPTION...]       --help lists the options
 *
 * Any Linux will do whose console is ttyS0 and whose prompt is "guest# ". `./dev guest-linux` makes
 * one and prints the two paths.
 */
#include <stdio.h>

#include <ramet/harness.h>

/* What is typed, and a line of the answer; the terminal in the guest repeats what is typed, too. */
#define SHELL(name, typed, line)                                                                   \
        RAMET_CASE(name)                                                                           \
        {                                                                                          \
                ramet_console_send(t, typed "\n");                                                 \
                ramet_expect_console(t, "\n" line "\r\n");                                         \
        }

SHELL(arithmetic, "echo $((6 * 7))", "42")
SHELL(length_of_a_variable, "x=ramet; echo ${#x}", "5")
SHELL(prefix_is_cut_off, "x=a.b.c; echo ${x##*.}", "c")
SHELL(default_value, "echo ${unset:-none}", "none")
SHELL(loop, "s=0; for i in 1 2 3 4; do s=$((s + i)); done; echo sum $s", "sum 10")
SHELL(function, "f() { echo \"<$1>\"; }; f 'hello world'", "<hello world>")
SHELL(pattern, "case kernel.elf in *.elf) echo yes;; *) echo no;; esac", "yes")
SHELL(status_of_a_command, "false; echo status $?", "status 1")
SHELL(status_of_a_subshell, "(exit 7); echo status $?", "status 7")
SHELL(status_of_a_missing_program, "no-such-program; echo status $?", "status 127")
SHELL(status_of_a_signal, "sleep 100 & kill $!; wait $!; echo status $?", "status 143")
SHELL(pipe, "echo one two three | wc -w", "3")
SHELL(sorted_lines, "printf '%s\\n' b c a | sort | head -n 1", "a")
SHELL(process_1_is_init, "read name < /proc/1/comm; echo $name", "init")
SHELL(one_processor, "grep -c ^processor /proc/cpuinfo", "1")
SHELL(file_is_read_back, "echo kept > /tmp/a; read x < /tmp/a; echo $x", "kept")
SHELL(tmp_is_empty, "echo /tmp/*", "/tmp/*")
SHELL(everything_is_removed, "rm -rf /bin /etc; echo /bin/*", "/bin/*")
SHELL(host_name_is_set, "hostname mine; read name < /proc/sys/kernel/hostname; echo $name", "mine")

RAMET_CASE(power_off)
{
        ramet_console_send(t, "poweroff -f\n");
        ramet_expect_exit(t, RAMET_EXIT_POWEROFF);
}

/* RAMET_MAIN() is for guests whose files are known; this is what it does. */
extern const struct ramet_case *const __start_ramet_cases[], *const __stop_ramet_cases[];

int main(int argc, char **argv)
{
        struct ramet_guest guest = {
                .size = sizeof guest,
                .ready_console = "guest# ",
                .ready_timeout_ns = 300 * RAMET_SECOND,
        };

        if (argc < 3) {
                fprintf(stderr, "usage: linux_shell VMLINUX INITRAMFS [OPTION...]\n");
                return 2;
        }
        guest.kernel = argv[1];
        guest.initramfs = argv[2];
        argv[2] = argv[0];
        return ramet_harness_main(argc - 2, argv + 2, &guest, __start_ramet_cases,
                                  __stop_ramet_cases);
}
