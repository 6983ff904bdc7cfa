/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allow-list of a running machine. It is installed when everything is open and every thread
 * exists, so nothing here opens, connects, forks or executes: no open*, socket, clone, execve,
 * mount, ptrace, kill. Memory may be mapped, but never executable. What remains is I/O on
 * descriptors that are there, memory, waiting, and the ioctls by which KVM is driven and a machine
 * is saved; with those, vm_freeze() makes its memfds and passes them on.
 *
 * Two halves: libseccomp compiles the list, which is the same for every machine; in front of it
 * go five instructions with this process's id, so that tgkill() (the vCPU kick) reaches nobody
 * else. The kernel answers for calls that are allowed whatever their arguments from a bitmap; only
 * those in `restricted` run the program, ioctl first.
 *
 * Operations of an io_uring are no system calls, and no filter sees them; so the loop's ring was
 * restricted to polling, and to reading and writing what is open, when it was made
 * (io/loop_uring.c), and no other can be made afterwards.
 */
#include "jail/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature) /* clang; gcc says it by a macro */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static const char *const base_syscalls[] = {
        /* the C library: memory, threads, the end */
        "brk",
        "munmap",
        "mremap",
        "madvise",
        "futex",
        "set_robust_list",
        "rseq",
        "sched_yield",
        "membarrier",
        "exit",
        "exit_group",
        "restart_syscall",
        "rt_sigreturn",
        "rt_sigprocmask",
        "rt_sigaction",
        "rt_sigpending",
        "rt_sigtimedwait",
        "getpid",
        "gettid",
        "getrandom",
        /* time, where the vDSO does not do it */
        "clock_gettime",
        "clock_nanosleep",
        "nanosleep",
        /* I/O on what is open, the channel to the launcher among it */
        "read",
        "write",
        "readv",
        "writev",
        "pread64",
        "pwrite64",
        "lseek",
        "close",
        "poll",
        "ppoll",
        "sendmsg",
        "recvmsg",
        /* a freeze: memory and state go into memfds, which are then sealed (fcntl, below) */
        "memfd_create",
        "ftruncate",
        "fallocate",
        "fstat",
        "newfstatat",
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        /* what a sanitizer needs to run and to write its report */
        "sigaltstack",
        "sched_getaffinity",
        "getrlimit",
        "prlimit64",
        "readlink",
        "open",
        "openat",
        "getrusage",
        "getppid",
        "prctl",
#endif
        NULL,
};

/* While a guest runs: enter it, save it, set it back, interrupt it, help its emulator; memory
 * slots, which can show it no more than this process has. Not: make VMs, vCPUs or devices. */
#define PAGEMAP_SCAN_REQUEST 0xc0606610u /* _IOWR('f', 16, struct pm_scan_arg): Linux 6.7 */
static const uint32_t ioctls[] = {
        KVM_RUN,
        KVM_IRQ_LINE,
        KVM_SIGNAL_MSI,
        KVM_GET_REGS,
        KVM_SET_REGS,
        KVM_GET_SREGS,
        KVM_SET_SREGS,
        KVM_GET_SREGS2,
        KVM_GET_FPU,
        KVM_GET_XSAVE,
        KVM_GET_XSAVE2,
        KVM_GET_XCRS,
        KVM_SET_SREGS2,
        KVM_SET_XSAVE,
        KVM_SET_XCRS,
        KVM_SET_MSRS,
        KVM_SET_LAPIC,
        KVM_SET_DEBUGREGS,
        KVM_SET_DEVICE_ATTR,
        KVM_SET_CLOCK,
        KVM_SET_IRQCHIP,
        KVM_SET_PIT2,
        KVM_SET_USER_MEMORY_REGION,
        KVM_GET_MSRS,
        KVM_GET_LAPIC,
        KVM_GET_VCPU_EVENTS,
        KVM_SET_VCPU_EVENTS,
        KVM_GET_MP_STATE,
        KVM_SET_MP_STATE,
        KVM_GET_DEBUGREGS,
        KVM_GET_TSC_KHZ,
        KVM_HAS_DEVICE_ATTR,
        KVM_GET_DEVICE_ATTR,
        KVM_TRANSLATE,
        KVM_KVMCLOCK_CTRL,
        KVM_GET_CLOCK,
        KVM_GET_IRQCHIP,
        KVM_GET_PIT2,
        KVM_GET_DIRTY_LOG,
        KVM_CLEAR_DIRTY_LOG,
        KVM_RESET_DIRTY_RINGS,
        KVM_CHECK_EXTENSION,
        PAGEMAP_SCAN_REQUEST,
        UFFDIO_REGISTER, /* --cow trap; the descriptor itself was made before */
        UFFDIO_WRITEPROTECT,
        UFFDIO_WAKE,
};

/* Not F_SETFL: the image and frozen overlays are open file descriptions that all machines of a
 * family share, and with O_DIRECT on them the others' reads would fail. */
static const uint32_t fcntls[] = {
        F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS,
};

static const uint32_t prctls[] = {
        PR_SET_NAME, PR_SET_VMA, /* newer C libraries name their heap */
};

/* Calls that are allowed for some arguments only: one argument, masked, is one of the values. */
struct restricted {
        const char *name;
        unsigned arg;
        uint32_t mask;
        const uint32_t *values;
        size_t nvalues;
};

#define VALUES(a) (a), sizeof(a) / sizeof *(a)

static const uint32_t zero[] = {0};
static const struct restricted restricted[] = {
        {"ioctl", 1, UINT32_MAX, VALUES(ioctls)},
        {"fcntl", 1, UINT32_MAX, VALUES(fcntls)},
        {"prctl", 0, UINT32_MAX, VALUES(prctls)},
        {"mmap", 2, PROT_EXEC, VALUES(zero)},
        {"mprotect", 2, PROT_EXEC, VALUES(zero)},
        {"tgkill", 0, 0, VALUES(zero)}, /* any value here: the prefix has looked at it */
};

#define NRESTRICTED (sizeof restricted / sizeof *restricted)

static int add_list(scmp_filter_ctx ctx, const char *const *list, bool base, struct err *err)
{
        for (; *list; list++) {
                int nr = seccomp_syscall_resolve_name(*list), ret;

                for (size_t i = 0; !base && i < NRESTRICTED; i++)
                        if (!strcmp(*list, restricted[i].name))
                                return err_host(err, EINVAL,
                                                "seccomp: %s may not be allowed as a whole", *list);
                if (nr == __NR_SCMP_ERROR)
                        return err_host(err, EINVAL, "seccomp: no system call is named %s", *list);
                ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
                if (ret && ret != -EEXIST)
                        return err_host(err, -ret, "seccomp: %s: %s", *list, strerror(-ret));
        }
        return 0;
}

static int add_restricted(scmp_filter_ctx ctx, const struct restricted *r, struct err *err)
{
        int nr = seccomp_syscall_resolve_name(r->name);

        for (size_t i = 0; i < r->nvalues; i++) {
                struct scmp_arg_cmp cmp = {
                        .arg = r->arg,
                        .op = SCMP_CMP_MASKED_EQ,
                        .datum_a = r->mask,
                        .datum_b = r->values[i],
                };
                int ret = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, r->mask ? 1 : 0, &cmp);

                if (ret && ret != -EEXIST)
                        return err_host(err, -ret, "seccomp: %s: %s", r->name, strerror(-ret));
        }
        return 0;
}

/* libseccomp writes the program only into a descriptor. */
static int export(scmp_filter_ctx ctx, struct jail_filter *filter, struct err *err)
{
        int fd = memfd_create("ramet-seccomp", MFD_CLOEXEC), ret;
        off_t size;

        if (fd < 0)
                return err_host(err, errno, "seccomp: memfd_create: %s", strerror(errno));
        ret = seccomp_export_bpf(ctx, fd);
        size = ret ? 0 : lseek(fd, 0, SEEK_END);
        filter->insns = size > 0 ? malloc((size_t)size) : NULL;
        if (!filter->insns)
                ret = ret ?: -ENOMEM;
        else if (pread(fd, filter->insns, (size_t)size, 0) != size)
                ret = -EIO;
        close(fd);
        if (ret) {
                jail_filter_fini(filter);
                return err_host(err, -ret, "seccomp: compiling the filter: %s", strerror(-ret));
        }
        filter->len = (unsigned)((size_t)size / sizeof(struct sock_filter));
        return 0;
}

int jail_filter_build(bool log, const char *const *const *lists, size_t nlists,
                      struct jail_filter *filter, struct err *err)
{
        uint32_t verdict = log ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS;
        scmp_filter_ctx ctx = seccomp_init(verdict);
        int ret;

        *filter = (struct jail_filter){.log = log};
        if (!ctx)
                return err_host(err, ENOMEM, "seccomp: no memory for a filter");
        ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        ret = ret ?: seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (ret)
                ret = err_host(err, -ret, "seccomp: %s", strerror(-ret));
        ret = ret ?: add_list(ctx, base_syscalls, true, err);
        for (size_t i = 0; !ret && i < nlists; i++)
                ret = lists[i] ? add_list(ctx, lists[i], false, err) : 0;
        for (size_t i = 0; !ret && i < NRESTRICTED; i++)
                ret = add_restricted(ctx, &restricted[i], err);
        ret = ret ?: export(ctx, filter, err);
        seccomp_release(ctx);
        return ret;
}

void jail_filter_fini(struct jail_filter *filter)
{
        free(filter->insns);
        filter->insns = NULL;
        filter->len = 0;
}

int jail_filter_install(const struct jail_filter *filter, struct err *err)
{
        /* The low half of an argument (little-endian): the kernel takes a pid_t from no more. */
        const struct sock_filter prefix[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_tgkill, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 1, 0),
                BPF_STMT(BPF_RET | BPF_K, filter->log ? SECCOMP_RET_LOG : SECCOMP_RET_KILL_PROCESS),
        };
        enum { NPREFIX = sizeof prefix / sizeof *prefix };
        struct sock_filter all[BPF_MAXINSNS];
        struct sock_fprog prog = {.filter = all};
        long ret;

        if (!filter->len || filter->len > BPF_MAXINSNS - NPREFIX)
                return err_host(err, EINVAL, "seccomp: there is no filter to install");
        memcpy(all, prefix, sizeof prefix);
        memcpy(all + NPREFIX, filter->insns, filter->len * sizeof *all);
        prog.len = (unsigned short)(filter->len + NPREFIX);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
                return err_host(err, errno, "seccomp: no_new_privs: %s", strerror(errno));
        ret = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
        if (ret > 0)
                return err_host(err, EBUSY, "seccomp: thread %ld cannot be confined", ret);
        if (ret < 0)
                return err_host(err, errno, "seccomp: installing the filter: %s", strerror(errno));
        return 0;
}
