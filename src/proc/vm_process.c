/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of one machine. Its first message says what it is to be:
 *
 *      BOOT  --> vm_create, vm_boot, vm_start --> confine --> STARTED --> vm_run --.
 *      SHELL --> vm_shell, vm_start --> WARM, then CLONE --> template_import, vm_adopt --> as below
 *      CLONE --> template_import, vm_spawn, vm_start --> confine --> READY --> vm_run (unless
 * paused)
 *                                                                                 |
 *          .----------------------------------------------------------------------'
 *          `--> loop: messages of the launcher, events of the machine --> vm_destroy --> EXIT
 *
 * The owner thread does everything here; it is the one that runs the loop. A fork is served in one
 * go, within the event or message that asks for it, so there is never more than one.
 *
 * Rules:
 *   - The filter goes on when the vCPU threads exist and before they run one guest instruction;
 * from then on only what jail/seccomp.c lists can be done.
 *   - EXIT is sent when the guest's last output has left: whoever hears of the end has all of it.
 *   - When the channel hangs up there is nobody to work for: the process ends on the spot.
 *   - On the way of a clone to READY nothing is done that could have been done once before: each
 *     system call here is paid for by each clone.
 */
#include "proc/vm_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ramet/fork_abi.h>

#include "base/clock.h"
#include "devices/device.h"
#include "proc/confine.h"
#include "proc/message.h"
#include "vm/vm.h"

#define LINGER_MS 2000 /* for the console to take the last output */

_Static_assert(MESSAGE_LAYERS_MAX == TEMPLATE_LAYERS_MAX, "a template fits into a message");
_Static_assert(MESSAGE_FILES_MAX == TEMPLATE_FILES_MAX, "and the files of its devices, too");
_Static_assert(RAMET_DISKS_MAX == DEVICE_DISKS_MAX, "as many disks as there can be");
_Static_assert(RAMET_SERIAL_MAX + 1 == sizeof((struct device_disk){0}.serial), "serials fit");

/* The first message. Large, and most of it is never touched: so it is not part of what is zeroed.
 */
union first {
        struct message_head head;
        struct message_boot boot;
        struct message_clone clone;
        struct message_shell shell;
};

struct process {
        int channel;
        struct loop *loop;
        struct vm *vm;
        struct err err; /* what went wrong, when something did */
        bool paused;    /* by the launcher, or as it was born */
        bool exited;
        unsigned fork_count; /* of the fork that is armed, and what its disks write to then: */
        struct vm_overlay armed[DEVICE_DISKS_MAX];
        struct message_fds fds; /* that came with the first message; -1: given away */
        union first *first;
};

static void send_event(struct process *p, struct message_event *m, enum message_type type,
                       const int *fds, unsigned nfds)
{
        m->head.type = type;
        if (!m->t_ns)
                m->t_ns = clock_now_ns();
        if (message_send(p->channel, m, sizeof *m, fds, nfds, 0) == -EPIPE)
                _exit(1);
}

static void send_plain(struct process *p, enum message_type type)
{
        struct message_event m = {0};

        send_event(p, &m, type, NULL, 0);
}

static void __attribute__((format(printf, 3, 4)))
send_text(struct process *p, enum message_type type, const char *fmt, ...)
{
        struct message_event m = {0};
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(m.text, sizeof m.text, fmt, ap);
        va_end(ap);
        send_event(p, &m, type, NULL, 0);
}

/* --- forks --- */

static void send_frozen(struct process *p, const struct template *t,
                        const struct vm_freeze_stats *s, uint64_t cause_ns, unsigned count)
{
        struct message_event m = {
                .frozen =
                        {
                                .fork_point_ns = cause_ns ?: s->fork_point_ns,
                                .stop_ns = s->stop_ns,
                                .pause_ns = s->pause_ns,
                                .freeze_ns = s->freeze_ns,
                                .publish_ns = s->publish_ns,
                                .copied_bytes = s->copied_bytes,
                                .generation = s->generation,
                                .count = count,
                                .nlayers = t->nlayers,
                                .nfiles = t->nfiles,
                        },
        };
        int fds[1 + TEMPLATE_LAYERS_MAX + TEMPLATE_FILES_MAX];
        unsigned n = 0;

        fds[n++] = t->state_fd;
        for (unsigned i = 0; i < t->nlayers; i++)
                fds[n++] = t->layer_fds[i];
        for (unsigned i = 0; i < t->nfiles; i++)
                fds[n++] = t->file_fds[i];
        send_event(p, &m, MESSAGE_FROZEN, fds, n);
}

/* @cause_ns: when the guest asked; 0: it did not. @overlays, which are given away, are those of
 * this very fork: none of an earlier one that did not need its own may be taken for them. */
static void fork_now(struct process *p, enum ramet_fork_cause cause, uint64_t cause_ns,
                     unsigned count, const struct vm_overlay overlays[DEVICE_DISKS_MAX])
{
        struct message_event m = {
                .t_ns = cause_ns,
                .fork_point = {.cause = cause, .count = count},
        };
        struct vm_freeze_stats stats = {0};
        struct template *t;
        int ret;

        send_event(p, &m, MESSAGE_FORK_POINT, NULL, 0);
        vm_give_overlays(p->vm, overlays);
        ret = vm_freeze(p->vm, cause_ns, cause == RAMET_FORK_DOORBELL, &t, &stats, &p->err);
        if (ret) {
                send_text(p, MESSAGE_FORK_FAILED, "%s", p->err.text);
        } else {
                send_frozen(p, t, &stats, cause_ns, count);
                template_unref(t);
        }
        if (cause_ns)
                vm_fork_done(p->vm, ret ? RAMET_DOORBELL_FAILED : 0, ret ? 0 : count);
        else if (!ret)
                vm_fork_told(p->vm, count);
}

/* The next of @fds, in order; it is given away. */
static int take_fd(struct message_fds *fds, unsigned *next, bool present)
{
        int fd = -1;

        if (present) {
                fd = fds->fd[*next];
                fds->fd[(*next)++] = -1;
        }
        return fd;
}

static void take_overlay(struct message_fds *fds, unsigned *next, bool present,
                         struct vm_overlay *overlay)
{
        overlay->given = present;
        overlay->fd = take_fd(fds, next, present);
        overlay->ro_fd = take_fd(fds, next, present);
}

static void fork_requested(struct process *p, const struct message_command *m,
                           struct message_fds *fds)
{
        struct vm_overlay overlays[DEVICE_DISKS_MAX];
        unsigned next = 0;

        if (p->exited) {
                send_text(p, MESSAGE_FORK_FAILED, "the machine has ended");
                return;
        }
        for (unsigned i = 0; i < DEVICE_DISKS_MAX; i++)
                take_overlay(fds, &next, m->overlays >> i & 1, &overlays[i]);
        fork_now(p, RAMET_FORK_REQUEST, 0, m->count, overlays);
}

/* The guest's vCPU waits for the answer, whatever it is. */
static void fork_by_guest(struct process *p, enum ramet_fork_cause cause, uint64_t t_ns)
{
        unsigned count = p->fork_count;

        p->fork_count = 0;
        if (count && !p->exited)
                fork_now(p, cause, t_ns, count, p->armed);
        else
                vm_fork_done(p->vm, RAMET_DOORBELL_NOT_ARMED, 0);
}

/* --- the loop --- */

static void vm_event(void *data, enum vm_event event, const struct vm_event_args *args)
{
        static const enum message_how how[] = {
                [VM_FIRST_EXIT_DOORBELL] = MESSAGE_HOW_DOORBELL,
                [VM_FIRST_EXIT_ANY] = MESSAGE_HOW_EXIT,
                [VM_FIRST_EXIT_KICK] = MESSAGE_HOW_KICK,
        };
        struct message_event m = {.t_ns = args->t_ns};
        struct process *p = data;

        switch (event) {
        case VM_EVENT_FORK_DOORBELL:
                fork_by_guest(p, RAMET_FORK_DOORBELL, args->t_ns);
                break;
        case VM_EVENT_FORK_CONSOLE:
                fork_by_guest(p, RAMET_FORK_CONSOLE, args->t_ns);
                break;
        case VM_EVENT_FIRST_EXIT:
                m.running.how = how[args->how];
                send_event(p, &m, MESSAGE_RUNNING, NULL, 0);
                break;
        case VM_EVENT_EXIT:
                p->exited = true;
                loop_stop(p->loop);
                break;
        case VM_EVENT_BREAKPOINT: /* nobody asks for these here */
        case VM_EVENT_UNHANDLED:
                break;
        }
}

static void set_paused(struct process *p, bool paused)
{
        if (paused && !p->paused && !p->exited)
                vm_pause(p->vm);
        if (!paused && p->paused && !p->exited)
                vm_run(p->vm);
        p->paused = paused;
        send_plain(p, paused ? MESSAGE_PAUSED : MESSAGE_RESUMED);
}

static void reset_requested(struct process *p)
{
        struct message_event m = {.reset.reset_ns = clock_now_ns()};
        int ret = p->exited ? err_host(&p->err, ESRCH, "the machine has ended")
                            : vm_reset(p->vm, &p->err);

        if (ret) {
                send_text(p, MESSAGE_RESET_FAILED, "%s", p->err.text);
                return;
        }
        m.reset.reset_ns = clock_now_ns() - m.reset.reset_ns;
        send_event(p, &m, MESSAGE_RESET_DONE, NULL, 0);
}

/* Those that nobody has taken. */
static void close_fds(struct message_fds *fds)
{
        for (unsigned i = 0; i < fds->n; i++)
                if (fds->fd[i] >= 0)
                        close(fds->fd[i]);
        fds->n = 0;
}

static void channel_readable(void *data, int fd, unsigned events)
{
        struct process *p = data;
        union {
                struct message_head head;
                struct message_command command;
        } m;
        struct message_fds fds;
        const char *why;
        int ret = message_receive(p->channel, MESSAGE_LAUNCHER_TO_MACHINE, &m, sizeof m, &fds,
                                  MSG_DONTWAIT, &why);

        if (ret == -EAGAIN)
                return;
        if (ret <= 0)
                _exit(1);
        switch (m.head.type) {
        case MESSAGE_FORK:
                fork_requested(p, &m.command, &fds);
                break;
        case MESSAGE_PAUSE:
                set_paused(p, true);
                break;
        case MESSAGE_RESUME:
                set_paused(p, false);
                break;
        case MESSAGE_RESET:
                reset_requested(p);
                break;
        }
        close_fds(&fds);
}

/* --- the beginning --- */

static int prepare_loop(struct process *p, struct vm_options *options)
{
        struct loop_watch *watch;
        int ret = loop_create(true, &p->loop);

        if (!ret)
                ret = loop_add_fd(p->loop, p->channel, POLLIN, channel_readable, p, &watch);
        if (ret)
                return err_host(&p->err, -ret, "event loop: %s", strerror(-ret));
        options->loop = p->loop;
        options->event = vm_event;
        options->event_data = p;
        return 0;
}

static int boot_machine(struct process *p, const struct vm_options *options,
                        const struct boot_source *source)
{
        const struct message_boot *m = &p->first->boot;
        const char *text = *m->fork_text ? m->fork_text : NULL;
        int ret = vm_create(options, &p->vm, &p->err);

        ret = ret ?: vm_boot(p->vm, source, &p->err);
        if (ret)
                return ret;
        if (m->fork_count && (m->fork_at_doorbell || text)) {
                ret = vm_arm_fork(p->vm, m->fork_at_doorbell, text);
                if (ret)
                        return err_input(&p->err, "the console text to fork at is too long");
                p->fork_count = m->fork_count;
        }
        return vm_start(p->vm, &p->err);
}

static struct vm_shape shape_of(const struct message_shape *s)
{
        return (struct vm_shape){
                .memory_bytes = s->memory_bytes,
                .vcpus = s->vcpus,
                .debug_exit_port = s->debug_exit_port,
                .ndisks = s->ndisks,
                .rng = s->rng,
                .virtio_console = s->virtio_console,
                .virtio_cmdline = s->virtio_cmdline,
        };
}

/* The names stay in the message, which lives as long as the machine. */
static void take_disks(struct process *p, unsigned *next, struct vm_options *options)
{
        const struct message_boot *m = &p->first->boot;

        for (unsigned i = 0; i < m->shape.ndisks; i++) {
                struct device_disk *d = &options->disks[i];

                d->image_fd = take_fd(&p->fds, next, true);
                d->image_ro_fd = take_fd(&p->fds, next, true);
                d->overlay_fd = d->overlay_ro_fd = -1;
                d->readonly = m->disks[i].readonly;
                d->iops_max = m->disks[i].iops_max;
                d->bandwidth_max = m->disks[i].bandwidth_max;
                d->name = m->disks[i].name;
                stpcpy(d->serial, m->disks[i].serial);
                take_overlay(&p->fds, next, m->overlays >> i & 1, &p->armed[i]);
        }
}

/* What this host lacks, and what is done instead. */
static void send_notes(struct process *p)
{
        const char *name, *instead;
        unsigned at = 0;

        if (!strcmp(loop_backend(p->loop), "epoll"))
                send_text(p, MESSAGE_NOTE, "this host allows no io_uring; epoll is used");
        while (vm_kvm_missing(p->vm, &at, &name, &instead))
                send_text(p, MESSAGE_NOTE, "this host's KVM has no %s: %s", name, instead);
}

static int boot(struct process *p, const struct vm_process_shared *shared)
{
        const struct message_boot *m = &p->first->boot;
        struct boot_source source = {
                .kernel_name = m->kernel_name,
                .initramfs_name = m->initramfs_name,
                .cmdline = m->cmdline,
                .flat = m->flat_bits != 0,
                .flat_address = m->flat_address,
                .flat_bits = m->flat_bits,
        };
        struct vm_options options = {
                .shape = shape_of(&m->shape),
                .hugepages = m->hugepages,
                .cow = m->shape.cow,
        };
        unsigned next = 0;
        int ret = prepare_loop(p, &options);

        if (ret)
                return ret;
        source.kernel_fd = take_fd(&p->fds, &next, true);
        source.initramfs_fd = take_fd(&p->fds, &next, m->has & MESSAGE_HAS_INITRAMFS);
        options.console_in_fd = take_fd(&p->fds, &next, m->has & MESSAGE_HAS_CONSOLE_IN);
        options.console_out_fd = take_fd(&p->fds, &next, m->has & MESSAGE_HAS_CONSOLE_OUT);
        take_disks(p, &next, &options);
        ret = boot_machine(p, &options, &source);
        close(source.kernel_fd);
        if (source.initramfs_fd >= 0)
                close(source.initramfs_fd);
        ret = ret ?: confine(shared, m->seccomp, &p->err);
        if (ret)
                return ret;
        send_notes(p);
        send_plain(p, MESSAGE_STARTED);
        vm_run(p->vm);
        return 0;
}

/* Make the clone: in the shell that p->vm is, or from nothing. */
static int make_clone(struct process *p, struct vm_options *options, struct template *t)
{
        const struct message_clone *m = &p->first->clone;
        struct vm_clone_files files = {.console_in_fd = options->console_in_fd,
                                       .console_out_fd = options->console_out_fd};
        int ret;

        memcpy(files.overlays, options->overlays, sizeof files.overlays);
        if (p->vm)
                return vm_adopt(p->vm, t, &files, m->index, m->count, &p->err);
        ret = vm_spawn(t, options, m->index, m->count, &p->vm, &p->err);
        return ret ?: vm_start(p->vm, &p->err);
}

static int spawn(struct process *p, const struct vm_process_shared *shared,
                 struct vm_options *options)
{
        const struct message_clone *m = &p->first->clone;
        unsigned next = 1 + m->nlayers + m->nfiles;
        struct template *t;
        int ret;

        if (p->vm && options->cow != m->cow)
                return err_input(&p->err, "a shell cannot change its copy-on-write engine");
        ret = template_import(p->fds.fd[0], p->fds.fd + 1, m->nlayers, p->fds.fd + 1 + m->nlayers,
                              m->nfiles, &t, &p->err);
        if (ret)
                return ret;
        options->hugepages = m->hugepages;
        options->cow = m->cow;
        for (unsigned i = 0; i < DEVICE_DISKS_MAX; i++)
                take_overlay(&p->fds, &next, m->overlays >> i & 1, &options->overlays[i]);
        options->console_in_fd = take_fd(&p->fds, &next, m->has & MESSAGE_HAS_CONSOLE_IN);
        options->console_out_fd = take_fd(&p->fds, &next, m->has & MESSAGE_HAS_CONSOLE_OUT);
        ret = make_clone(p, options, t);
        template_unref(t);
        ret = ret ?: confine(shared, m->seccomp, &p->err);
        if (ret)
                return ret;
        p->paused = m->paused;
        send_plain(p, MESSAGE_READY);
        if (!p->paused)
                vm_run(p->vm);
        return 0;
}

static int spawn_cold(struct process *p, const struct vm_process_shared *shared)
{
        struct vm_options options = {0};
        int ret = prepare_loop(p, &options);

        return ret ?: spawn(p, shared, &options);
}

static int receive_first(struct process *p)
{
        const char *why;

        return message_receive(p->channel, MESSAGE_LAUNCHER_TO_MACHINE, p->first, sizeof *p->first,
                               &p->fds, 0, &why);
}

/* All that needs no template, and then wait for one; not in the loop, which would add a wake-up. */
static int spawn_warm(struct process *p, const struct vm_process_shared *shared)
{
        const struct message_shell *m = &p->first->shell;
        struct vm_options options = {
                .shape = shape_of(&m->shape),
                .console_in_fd = -1,
                .console_out_fd = -1,
                .cow = m->shape.cow,
        };
        int ret = prepare_loop(p, &options);

        ret = ret ?: vm_shell(&options, &p->vm, &p->err);
        ret = ret ?: vm_start(p->vm, &p->err);
        if (ret)
                return ret;
        send_plain(p, MESSAGE_WARM);
        ret = receive_first(p);
        if (ret == -EMFILE)
                return err_host(&p->err, EMFILE, "%s", strerror(EMFILE));
        if (ret <= 0 || p->first->head.type != MESSAGE_CLONE)
                _exit(1);
        return spawn(p, shared, &options);
}

/* --- the end --- */

/* What could not be begun, or not gone on with. */
static int give_up(struct process *p, int ret)
{
        struct message_event m = {
                .exit.reason = p->err.class == ERR_INPUT ? RAMET_EXIT_INPUT : RAMET_EXIT_HOST,
                .text_is_input = p->err.class == ERR_INPUT,
        };

        snprintf(m.text, sizeof m.text, "%s", *p->err.text ? p->err.text : strerror(-ret));
        send_event(p, &m, MESSAGE_EXIT, NULL, 0);
        return 1;
}

static int finish(struct process *p)
{
        struct message_event m = {0};
        struct vm_exit_info info;

        vm_exit_info(p->vm, &info);
        m.t_ns = clock_now_ns();
        m.exit.reason = info.reason;
        m.exit.status = info.status;
        m.exit.assists = vm_assists(p->vm);
        m.text_is_input = info.reason == RAMET_EXIT_INPUT;
        snprintf(m.text, sizeof m.text, "%s", info.text);
        if (vm_memory_usage(p->vm, &m.exit.shared_bytes, &m.exit.private_bytes))
                m.exit.shared_bytes = m.exit.private_bytes = 0;
        vm_destroy(p->vm, LINGER_MS);
        send_event(p, &m, MESSAGE_EXIT, NULL, 0);
        return 0;
}

int vm_process_main(void *shared, int channel)
{
        union first first;
        struct process p = {.channel = channel, .first = &first};
        int ret;

        prctl(PR_SET_NAME, "ramet-vm");
        ret = receive_first(&p);
        if (ret == -EMFILE)
                return give_up(&p, err_host(&p.err, EMFILE, "%s", strerror(EMFILE)));
        if (ret <= 0)
                return 1; /* the launcher thought better of it */
        switch (first.head.type) {
        case MESSAGE_BOOT:
                ret = boot(&p, shared);
                break;
        case MESSAGE_CLONE:
                ret = spawn_cold(&p, shared);
                break;
        case MESSAGE_SHELL:
                ret = spawn_warm(&p, shared);
                break;
        default:
                return 1;
        }
        if (ret)
                return give_up(&p, ret);
        ret = loop_run(p.loop);
        if (ret)
                return give_up(&p, err_host(&p.err, -ret, "event loop: %s", strerror(-ret)));
        return finish(&p);
}
