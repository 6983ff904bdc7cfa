/* SPDX-License-Identifier: Apache-2.0 */
/*
 * badargs FROM TO [NAME]: runs rows FROM to TO (of one function), each in a thread of its own,
 * whose last error is empty before, with a machine of its own. For each row a line, before it runs,
 * with its number and what it is; and then one that begins with "ok" or "bad". One that takes
 * longer than TIMEOUT_S ends the program, as one that crashes does: test_badargs.py goes on behind
 * it.
 */
#include "badargs.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/guest/servant.h"

#define TIMEOUT_S 10

static void must(bool ok, const char *what)
{
        if (ok)
                return;
        printf("bad: cannot try it: %s: %s\n", what, ramet_last_error(NULL));
        fflush(stdout);
        _exit(3);
}
#define MUST(what) must((what), #what)

/* --- structs at the end of what can be touched --- */

static void *at_the_end(size_t size)
{
        const size_t page = 4096, room = (size + page - 1) / page * page;
        uint8_t *p =
                mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        MUST(p != MAP_FAILED && mprotect(p + room, page, PROT_NONE) == 0);
        return p + room - size;
}

void *sized(const void *good, size_t size, size_t said)
{
        /* one that says less has no more than its size; aligned, as a struct is */
        const size_t have = said < size ? sizeof said : size;
        void *p = at_the_end((have + 15) / 16 * 16);

        memcpy(p, good, have);
        memcpy(p, &said, sizeof said);
        return p;
}

void *tailed(const void *good, size_t size, size_t more)
{
        const size_t said = size + more;
        uint8_t *p = at_the_end((said + 15) / 16 * 16);

        memcpy(p, good, size);
        memset(p + size, 0xff, more);
        memcpy(p, &said, sizeof said);
        return p;
}

/* --- good arguments --- */

#define GOOD(type, name, ...)                                                                      \
        struct type *good_##name(void)                                                             \
        {                                                                                          \
                static _Thread_local struct type good;                                             \
                                                                                                   \
                good = (struct type){.size = sizeof good, ##__VA_ARGS__};                          \
                return &good;                                                                      \
        }

const char *good_kernel(void)
{
        static _Thread_local char path[4096];

        snprintf(path, sizeof path, "%s/servant.elf", getenv("TEST_GUESTS"));
        return path;
}

static int good_kernel_fd(void)
{
        static int fd = -1;

        if (fd < 0)
                fd = open(good_kernel(), O_RDONLY | O_CLOEXEC);
        return fd;
}

static uint64_t handler_read(void *data, uint64_t offset, unsigned length)
{
        return 0;
}

static void handler_write(void *data, uint64_t offset, unsigned length, uint64_t value)
{
}

static void good_run(struct ramet_test *t)
{
}

void good_end(void *data)
{
}

GOOD(ramet_vm_config, vm_config, .kernel = good_kernel(), .memory_bytes = 16 << 20,
     .hugepages = RAMET_HUGEPAGES_OFF)
GOOD(ramet_vm_options, vm_options, .kernel_fd = good_kernel_fd(), .initramfs_fd = -1,
     .memory_bytes = 16 << 20, .vcpus = 1, .console_in_fd = -1, .console_out_fd = -1,
     .hugepages = RAMET_HUGEPAGES_OFF, .fork_count = 1, .fork_at_doorbell = true)
GOOD(ramet_spawn_options, spawn_options)
GOOD(ramet_clone_options, clone_options, .index = 1, .count = 1, .console_in_fd = -1,
     .console_out_fd = -1)
GOOD(ramet_template_info, template_info)
GOOD(ramet_handler, handler, .read = handler_read, .write = handler_write)
GOOD(ramet_vm_stats, vm_stats)
GOOD(ramet_guest, guest, .kernel = good_kernel(), .memory_bytes = 16 << 20)
GOOD(ramet_case, case, .name = "good", .run = good_run)
GOOD(ramet_run_options, run_options, .tap_fd = -1, .jobs = 1)
GOOD(ramet_run_result, run_result)
GOOD(ramet_fuzz_result, fuzz_result)

struct ramet_fuzz_options *good_fuzz_options(void)
{
        static _Thread_local struct ramet_fuzz_options good;
        static _Thread_local struct ramet_guest guest;
        static _Thread_local char path[4096];

        snprintf(path, sizeof path, "%s/fuzzed.elf", getenv("TEST_GUESTS"));
        guest = *good_guest();
        guest.kernel = path;
        good = (struct ramet_fuzz_options){.size = sizeof good, .guest = &guest};
        good.input = "input";
        return &good;
}

struct ramet_regs *good_regs(void)
{
        static _Thread_local struct ramet_regs good;

        good = (struct ramet_regs){.size = sizeof good, .rflags = 2};
        return &good;
}

struct ramet_limits *good_limits(void)
{
        static _Thread_local struct ramet_limits good;

        good = (struct ramet_limits){0};
        return &good;
}

const struct ramet_case *const *good_cases(void)
{
        static _Thread_local const struct ramet_case *cases[2];

        cases[0] = good_case();
        return cases;
}

char **good_argv(void)
{
        static char name[] = "badargs";
        static char *argv[] = {name, NULL};

        return argv;
}

/* --- machines in a state --- */

static struct ramet_ctx *ctx;
static struct ramet_spawner *spawner;
static struct ramet_template *tmpl;

static void order(struct ramet_vm *vm, enum servant_order what, uint64_t address, uint64_t number)
{
        struct servant_mail mail;

        MUST(ramet_vm_read(vm, SERVANT_MAIL, &mail, sizeof mail) == 0);
        mail.order = what;
        mail.address = address;
        mail.number = number;
        MUST(ramet_vm_write(vm, SERVANT_MAIL, &mail, sizeof mail) == 0);
}

static struct ramet_template *booted_template(void)
{
        struct ramet_vm_event event;
        struct ramet_vm *vm;

        if (tmpl)
                return tmpl;
        MUST(ramet_vm_create(ctx, good_vm_config(), &vm) == 0);
        MUST(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event) == 1);
        MUST(ramet_vm_freeze(vm, "good", &tmpl) == 0);
        ramet_vm_destroy(vm);
        return tmpl;
}

/* Serve the spawner until its machine has an event of @type, which goes to e->process_event. */
static void process_until(struct env *e, enum ramet_event_type type)
{
        struct pollfd fd = {.fd = ramet_spawner_fd(e->spawner), .events = POLLIN};

        for (;;) {
                while (ramet_spawner_next(e->spawner, &e->process_event) == 1) {
                        if (e->process_event.process != e->process)
                                continue;
                        if (e->process_event.type == RAMET_EVENT_FROZEN)
                                e->frozen = e->process_event.frozen.frozen;
                        if (e->process_event.type == type)
                                return;
                }
                poll(&fd, 1, 1000);
        }
}

static void make(struct env *e, enum state state)
{
        struct ramet_vm_event event;

        *e = (struct env){.ctx = ctx, .spawner = spawner, .text = "text"};
        e->tmpl = ramet_template_ref(booted_template());
        if (state == NEW)
                MUST(ramet_vm_create(ctx, good_vm_config(), &e->vm) == 0);
        else if (state >= PAUSED && state <= HANDLER)
                MUST(ramet_template_spawn(e->tmpl, NULL, &e->vm) == 0);
        if (state == RUNNING) {
                order(e->vm, SERVANT_SPIN, 0, 0);
                MUST(ramet_vm_start(e->vm) == 0 && ramet_vm_continue(e->vm) == 0);
        } else if (state == ENDED) {
                order(e->vm, SERVANT_POWEROFF, 0, 0);
                MUST(ramet_vm_run_until(e->vm, RAMET_VM_EXIT, 10 * RAMET_SECOND, &event) == 1);
        } else if (state == HELD) {
                MUST(ramet_vm_run_until(e->vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event) == 1);
        } else if (state == PROCESS || state == PROCESS_GONE) {
                MUST(ramet_process_start(e->spawner, good_vm_options(), &e->process) == 0);
                process_until(e, RAMET_EVENT_FROZEN);
        }
        if (state == PROCESS_GONE) {
                MUST(ramet_process_kill(e->process) == 0);
                process_until(e, RAMET_EVENT_GONE);
        }
}

/* What only few rows need. */
static void make_harness(struct env *e, const char *function)
{
        static struct ramet_booted *booted;
        static struct ramet_fuzz *fuzz;

        if (!strncmp(function, "ramet_fuzz_", 11)) {
                if (!fuzz)
                        MUST(ramet_fuzz_create(ctx, good_fuzz_options(), &fuzz) == 0);
                e->fuzz = fuzz;
        }
        if (!booted)
                MUST(ramet_boot_guest(ctx, good_guest(), &booted) == 0);
        e->booted = booted;
}

static void drop(struct env *e)
{
        ramet_vm_destroy(e->vm);
        ramet_vm_destroy(e->vm_out);
        for (unsigned i = 0; i < 4; i++)
                ramet_vm_destroy(e->clones[i]);
        ramet_template_release(e->tmpl);
        ramet_template_release(e->tmpl_out);
        ramet_process_release(e->process);
        ramet_process_release(e->process_out);
        ramet_frozen_release(e->frozen);
        ramet_frozen_release(e->frozen_out);
        ramet_booted_free(e->booted_out);
        ramet_fuzz_destroy(e->fuzz_out);
        ramet_spawner_destroy(e->spawner_out);
        ramet_ctx_destroy(e->ctx_out);
}

/* --- a row --- */

struct trial {
        const struct row *row;
        struct env *e;
        bool came_back;
        long ret;
        char text[512];
};

static void call(struct trial *t)
{
        t->ret = t->row->call(t->e);
        snprintf(t->text, sizeof t->text, "%s", ramet_last_error(NULL));
        t->came_back = true;
}

static uint64_t call_in_handler(void *data, uint64_t offset, unsigned length)
{
        call(data);
        return 0;
}

static void call_in_case(struct ramet_test *test)
{
        struct trial *t = ramet_test_data(test);

        t->e->t = test;
        t->row->call(t->e);
}

static void try_in_handler(struct trial *t)
{
        const struct ramet_handler handler = {.size = sizeof handler, .read = call_in_handler};
        struct ramet_vm_event event;

        MUST(ramet_vm_handle(t->e->vm, RAMET_PIO, 0x500, 4, &handler, t) == 0);
        order(t->e->vm, SERVANT_IN, 0x500, 4);
        MUST(ramet_vm_continue(t->e->vm) == 0);
        MUST(ramet_vm_run_until(t->e->vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event) == 1);
}

static void *try(void *data)
{
        struct trial *t = data;
        struct ramet_case in_case = {.size = sizeof in_case,
                                     .name = "badargs",
                                     .run = call_in_case,
                                     .timeout_ns = RAMET_SECOND,
                                     .data = t};

        switch (t->row->state) {
        case HANDLER:
                try_in_handler(t);
                break;
        case SECTION:
                MUST(ramet_vm_begin(t->e->vm) == 0);
                call(t);
                if (t->e->vm)
                        ramet_vm_end(t->e->vm); /* if it is not what was called */
                break;
        case IN_CASE:
                t->ret = ramet_run_case(t->e->booted, &in_case, t->text, sizeof t->text);
                t->came_back = true;
                break;
        default:
                call(t);
        }
        return NULL;
}

static bool documented(const struct row *row, int code)
{
        const char *name = strerrorname_np(code), *at = row->codes;

        if (*at == '*')
                return true;
        for (; name && (at = strstr(at, name)); at++)
                if (at[strlen(name)] == ' ' || !at[strlen(name)])
                        return true;
        return false;
}

/* NULL, or what is wrong. */
static const char *judge(const struct trial *t)
{
        const enum want want = t->row->want;
        const int code = want == REFUSED    ? EINVAL
                         : want == BUSY     ? EBUSY
                         : want == DEADLOCK ? EDEADLK
                                            : 0;

        if (want == RETURNS)
                return NULL;
        if (!t->came_back)
                return "it did not come back";
        if (want == NOT_ZERO)
                return t->ret ? NULL : "it is taken for good";
        if (want == FAILS)
                return t->ret != 1 ? "the case does not fail"
                       : *t->text  ? NULL
                                   : "without a reason";
        if ((code || want == SOME_REFUSAL) && t->ret >= 0)
                return "it is taken for good";
        if (code && t->ret != -code)
                return "another code than expected";
        if (!code && t->ret < 0 && !documented(t->row, (int)-t->ret))
                return "a code that is not documented";
        if (t->ret < 0 && !*t->text)
                return "no words";
        if (strchr(t->text, '\n'))
                return "more than a line";
        return NULL;
}

static void run(unsigned number)
{
        struct env e = {0};
        struct trial t = {.row = &rows[number], .e = &e};
        const char *wrong;
        pthread_t thread;

        printf("%u %s: %s\n", number, t.row->function, t.row->what);
        fflush(stdout);
        alarm(TIMEOUT_S);
        make(&e, t.row->state);
        if (t.row->harness)
                make_harness(&e, t.row->function);
        MUST(pthread_create(&thread, NULL, try, &t) == 0);
        pthread_join(thread, NULL);
        wrong = judge(&t);
        if (wrong)
                printf("bad: %s: %ld, \"%s\"\n", wrong, t.ret, t.text);
        else
                printf("ok %ld \"%s\"\n", t.ret, t.text);
        fflush(stdout);
        drop(&e);
        alarm(0);
}

int main(int argc, char **argv)
{
        const unsigned from = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
        const unsigned to = argc > 2 ? (unsigned)atoi(argv[2]) : nrows;

        MUST(ramet_ctx_create(&ctx) == 0);
        MUST(ramet_spawner_create(ctx, &spawner) == 0); /* before there are threads */
        for (unsigned i = from; i < to && i < nrows; i++)
                if (argc < 4 || !strcmp(argv[3], rows[i].function))
                        run(i);
        ramet_spawner_destroy(spawner);
        ramet_template_release(tmpl);
        ramet_ctx_destroy(ctx);
        return 0;
}
