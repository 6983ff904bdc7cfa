/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine `trap` on memory without a machine: whoever writes, by whatever means, the page is
 * told first, once, and what is listed is exactly what was written.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "mem/backing.h"
#include "mem/cow_trap.h"
#include "mem/uffd.h"

#define MIB    (1ull << 20)
#define SIZE   (16 * MIB)
#define PAGE   4096ull
#define NPAGES (SIZE / PAGE)
#define DATA   (8 * MIB) /* written before the freeze; above it are holes */

struct tmpl {
        int layers[BACKING_LAYERS_MAX];
        unsigned nlayers;
        struct extent_list extents;
};

/* What the engine has told. */
struct told {
        _Atomic unsigned pages[NPAGES]; /* how often */
        _Atomic uint64_t total, last_count;
        _Atomic bool hold; /* the next one waits for `go` */
        sem_t held, go;
};

static struct told told;
static struct err err;

static void own_page(void *data, uint64_t offset, uint64_t own_pages)
{
        struct told *t = data;

        t->pages[offset / PAGE]++;
        t->last_count = own_pages;
        t->total++;
        if (atomic_exchange(&t->hold, false)) {
                sem_post(&t->held);
                sem_wait(&t->go);
        }
}

static void set_trap(struct backing *b)
{
        const struct cow_env env = {.own_page = own_page, .data = &told};

        if (backing_set_cow(b, &cow_trap, &env, &err) < 0)
                fail_msg("%s", err.text);
}

static void freeze(struct backing *b, struct tmpl *t)
{
        struct backing_freeze f;

        assert_int_equal(backing_freeze_prepare(b, &f, &err), 0);
        assert_int_equal(backing_freeze(b, &f, &err), 0);
        assert_int_equal(backing_freeze_publish(b, &f, t->layers, &t->nlayers, &t->extents, &err),
                         0);
        for (unsigned i = 0; i < t->nlayers; i++)
                t->layers[i] = dup(t->layers[i]);
        backing_freeze_end(&f);
}

static void drop(struct tmpl *t)
{
        for (unsigned i = 0; i < t->nlayers; i++)
                close(t->layers[i]);
        extent_list_fini(&t->extents);
        *t = (struct tmpl){0};
}

/* Each page of data holds its number. */
static void root(struct backing *b, struct tmpl *t, bool huge)
{
        bool got;

        assert_int_equal(backing_create(b, SIZE, huge, &got, &err), 0);
        set_trap(b);
        for (uint64_t at = 0; at < DATA; at += PAGE)
                *(uint64_t *)(b->hva + at) = at / PAGE;
        freeze(b, t);
}

static void clone_of(struct backing *b, const struct tmpl *t)
{
        assert_int_equal(backing_reserve(b, SIZE, &err), 0);
        set_trap(b);
        assert_int_equal(
                backing_fill(b, t->layers, t->nlayers, t->extents.items, t->extents.count, &err),
                0);
}

static int setup(void **state)
{
        memset(&told, 0, sizeof told);
        sem_init(&told.held, 0, 0);
        sem_init(&told.go, 0, 0);
        alarm(60); /* a writer that is never let go */
        return 0;
}

static int teardown(void **state)
{
        alarm(0);
        return 0;
}

static uint64_t own_pages(const struct backing *b)
{
        struct cow_trap_stats stats;

        cow_trap_stats(b, &stats);
        return stats.own_pages;
}

/* The kernel's view: pages that are there or swapped out, of no file, and not protected any more
 * (bits 63, 62, 61, 57 of Documentation/admin-guide/mm/pagemap.rst). extent_scan_private() would
 * not do: it takes the marker of a protected page that is not there for a swapped one. */
static void scan(const struct backing *b, bool *map)
{
        static uint64_t entries[NPAGES];

        assert_int_equal(pread(b->pagemap_fd, entries, sizeof entries,
                               (off_t)((uintptr_t)b->hva / PAGE * sizeof *entries)),
                         sizeof entries);
        for (unsigned i = 0; i < NPAGES; i++)
                map[i] = entries[i] >> 62 && !(entries[i] >> 61 & 1) && !(entries[i] >> 57 & 1);
}

/* What was written, what the engine lists, and what the kernel says is private: all one. */
static void check_own(const struct backing *b, const _Atomic bool *written)
{
        static bool listed[NPAGES], scanned[NPAGES];
        struct extent_list list = {0};
        uint64_t n = 0;

        assert_int_equal(b->cow->list_own(b, 3, &list), 0);
        assert_int_equal(extent_check(list.items, list.count, b->size, 4, &err), 0);
        memset(listed, 0, sizeof listed);
        for (size_t i = 0; i < list.count; i++)
                for (uint64_t at = 0; at < list.items[i].length; at += PAGE)
                        listed[(list.items[i].offset + at) / PAGE] = true;
        extent_list_fini(&list);
        scan(b, scanned);
        for (unsigned i = 0; i < NPAGES; i++) {
                if (listed[i] != written[i] || scanned[i] != written[i])
                        fail_msg("page %u: written %d, listed %d, private %d", i, written[i],
                                 listed[i], scanned[i]);
                n += written[i];
        }
        assert_int_equal(own_pages(b), n);
}

static _Atomic bool truth[NPAGES];

static void no_truth(void)
{
        memset(&truth, 0, sizeof truth);
}

/* --- one page --- */

struct writer {
        pthread_t thread;
        uint8_t *at;
        _Atomic bool done;
};

static void *write_byte(void *arg)
{
        struct writer *w = arg;

        *(volatile uint8_t *)w->at = 0x77;
        w->done = true;
        return NULL;
}

static void start_writer(struct writer *w, uint8_t *at)
{
        *w = (struct writer){.at = at};
        assert_int_equal(pthread_create(&w->thread, NULL, write_byte, w), 0);
}

static void rest(unsigned ms)
{
        nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void a_page_is_told_once_and_before_it_is_written(void **state)
{
        struct tmpl t = {0};
        struct backing b;
        struct writer w;

        root(&b, &t, false);
        assert_int_equal(told.total, 0); /* before the freeze nothing is anybody's */
        told.hold = true;
        start_writer(&w, b.hva + 5 * PAGE + 100);
        sem_wait(&told.held);
        rest(30);
        assert_false(w.done);
        assert_int_equal(own_pages(&b), 0); /* the owner waits for nobody */
        sem_post(&told.go);
        pthread_join(w.thread, NULL);
        assert_int_equal(told.pages[5], 1);
        assert_int_equal(told.last_count, 1);
        b.hva[5 * PAGE] = 1;
        b.hva[6 * PAGE] = 1;
        assert_int_equal(told.total, 2);
        assert_int_equal(told.pages[6], 1);
        assert_int_equal(told.last_count, 2);
        backing_destroy(&b);
        drop(&t);
}

static void many_writers_of_one_page_tell_it_once(void **state)
{
        struct writer w[8];
        struct tmpl t = {0};
        struct backing b;

        root(&b, &t, false);
        for (unsigned round = 0; round < 100; round++) {
                uint8_t *page = b.hva + round * 2 * PAGE;

                for (unsigned i = 0; i < 8; i++)
                        start_writer(&w[i], page + 64 * i);
                for (unsigned i = 0; i < 8; i++)
                        pthread_join(w[i].thread, NULL);
                for (unsigned i = 0; i < 8; i++)
                        assert_int_equal(page[64 * i], 0x77);
                assert_int_equal(told.pages[round * 2], 1);
        }
        assert_int_equal(own_pages(&b), 100);
        backing_destroy(&b);
        drop(&t);
}

static __thread sigjmp_buf away;

static void jump_away(int signal)
{
        siglongjmp(away, 1);
}

static void *write_unless_interrupted(void *arg)
{
        struct writer *w = arg;

        if (sigsetjmp(away, 1) == 0)
                write_byte(w);
        return NULL;
}

static void *release_soon(void *arg)
{
        rest(50);
        sem_post(&told.go);
        return NULL;
}

/* The engine has been told of a write, which then does not happen, as with a vCPU that is kicked.
 * A reset is of that, too. */
static void a_reset_is_of_interrupted_writes_too(void **state)
{
        struct sigaction sa = {.sa_handler = jump_away};
        struct tmpl t = {0};
        struct backing b;
        struct writer w;
        pthread_t other;

        root(&b, &t, false);
        sigaction(SIGUSR1, &sa, NULL);
        told.hold = true;
        w = (struct writer){.at = b.hva + 5 * PAGE};
        assert_int_equal(pthread_create(&w.thread, NULL, write_unless_interrupted, &w), 0);
        sem_wait(&told.held);
        pthread_kill(w.thread, SIGUSR1);
        pthread_join(w.thread, NULL);
        assert_false(w.done);
        pthread_create(&other, NULL, release_soon, NULL);
        assert_int_equal(backing_reset(&b, &err), 0);
        rest(30);
        assert_int_equal(own_pages(&b), 0);
        b.hva[5 * PAGE] = 1;
        assert_int_equal(told.pages[5], 2);
        assert_int_equal(own_pages(&b), 1);
        pthread_join(other, NULL);
        backing_destroy(&b);
        drop(&t);
}

/* --- the kernel writes --- */

static void writes_of_the_kernel_are_caught(void **state)
{
        struct tmpl t = {0};
        struct backing b;
        int p[2], fd = memfd_create("x", 0);
        char buf[64];

        no_truth();
        root(&b, &t, false);
        assert_int_equal(pipe(p), 0);
        memset(buf, 0x5a, sizeof buf);
        assert_int_equal(write(p[1], buf, sizeof buf), sizeof buf);
        assert_int_equal(read(p[0], b.hva + 2 * PAGE - 10, sizeof buf), sizeof buf); /* over two */
        truth[1] = truth[2] = true;
        assert_int_equal(b.hva[2 * PAGE - 10], 0x5a);
        assert_int_equal(b.hva[2 * PAGE + 53], 0x5a);
        assert_int_equal(pwrite(fd, buf, sizeof buf, 0), sizeof buf);
        assert_int_equal(pread(fd, b.hva + DATA + 7 * PAGE, sizeof buf, 0), sizeof buf);
        truth[(DATA + 7 * PAGE) / PAGE] = true; /* in a hole */
        assert_int_equal(getrandom(b.hva + 20 * PAGE, 8, 0), 8);
        truth[20] = true;
        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, (void *)(b.hva + 30 * PAGE)), 0);
        truth[30] = true;
        assert_int_equal(write(p[1], b.hva + 40 * PAGE, 16), 16); /* this one reads */
        check_own(&b, truth);
        assert_int_equal(told.total, 5);
        close(p[0]);
        close(p[1]);
        close(fd);
        backing_destroy(&b);
        drop(&t);
}

/* --- random writes against the truth --- */

struct storm {
        pthread_t thread;
        struct backing *b;
        unsigned seed, writes;
        int pipe[2];
};

static void *storm(void *arg)
{
        struct storm *s = arg;

        for (unsigned i = 0; i < s->writes; i++) {
                unsigned page = (unsigned)rand_r(&s->seed) % NPAGES,
                         how = (unsigned)rand_r(&s->seed);
                uint8_t *at = s->b->hva + page * PAGE + how / 16 % (PAGE - 8);

                switch (how % 4) {
                case 0: /* only looks */
                        (void)*(volatile uint8_t *)at;
                        continue;
                case 1:
                        if (write(s->pipe[1], "12345678", 8) != 8 || read(s->pipe[0], at, 8) != 8)
                                abort();
                        break;
                case 2:
                        __atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
                        break;
                default:
                        *at = (uint8_t)i;
                }
                truth[page] = true;
        }
        return NULL;
}

static void run_storm(struct backing *b, unsigned seed, unsigned writes)
{
        struct storm s[4];

        for (unsigned i = 0; i < 4; i++) {
                s[i] = (struct storm){.b = b, .seed = seed * 4 + i, .writes = writes};
                assert_int_equal(pipe(s[i].pipe), 0);
                assert_int_equal(pthread_create(&s[i].thread, NULL, storm, &s[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
                pthread_join(s[i].thread, NULL);
                close(s[i].pipe[0]);
                close(s[i].pipe[1]);
        }
}

static void what_is_listed_is_what_was_written(void **state)
{
        for (unsigned huge = 0; huge < 2; huge++) {
                struct tmpl t = {0};
                struct backing b;

                root(&b, &t, huge);
                for (unsigned round = 0; round < 6; round++) {
                        no_truth();
                        run_storm(&b, round, 20 << round);
                        check_own(&b, truth);
                        run_storm(&b, round + 100, 20 << round); /* on top of it */
                        check_own(&b, truth);
                        madvise(b.hva, b.size,
                                MADV_PAGEOUT); /* protection outlives a page's stay */
                        run_storm(&b, round + 200, 20 << round);
                        check_own(&b, truth);
                        assert_int_equal(backing_reset(&b, &err), 0);
                        for (uint64_t at = 0; at < SIZE; at += PAGE) {
                                uint64_t was = at < DATA ? at / PAGE : 0;

                                assert_int_equal(*(uint64_t *)(b.hva + at), was);
                        }
                        no_truth();
                        check_own(&b, truth);
                }
                backing_destroy(&b);
                drop(&t);
        }
}

/* A template is made of what is listed: here its clone sees every write, and none is missing. */
static void clones_of_clones_have_all_pages(void **state)
{
        static uint64_t expected[NPAGES];
        struct backing chain[5], last;
        struct tmpl t = {0};
        unsigned seed = 7;

        root(&chain[0], &t, false);
        for (unsigned i = 0; i < NPAGES; i++)
                expected[i] = i < DATA / PAGE ? i : 0;
        for (unsigned depth = 1; depth < 5; depth++) {
                struct backing *b = &chain[depth];

                clone_of(b, &t);
                drop(&t);
                no_truth();
                for (unsigned i = 0; i < 300; i++) {
                        unsigned page = (unsigned)rand_r(&seed) % NPAGES;

                        *(uint64_t *)(b->hva + page * PAGE) = expected[page] = depth * 10000 + i;
                        truth[page] = true;
                }
                check_own(b, truth);
                freeze(b, &t);
                b->hva[0] = 0xee; /* after the freeze: its own business */
                truth[0] = true;
                check_own(b, truth);
        }
        clone_of(&last, &t);
        for (unsigned i = 0; i < NPAGES; i++)
                assert_int_equal(*(uint64_t *)(last.hva + i * PAGE), expected[i]);
        backing_destroy(&last);
        for (unsigned i = 0; i < 5; i++)
                backing_destroy(&chain[i]);
        drop(&t);
}

/* --- the end --- */

/* The thread ends while a writer waits whom it has not got to. */
static void destroying_lets_go_whoever_waits(void **state)
{
        struct writer first, second;
        struct tmpl t = {0};
        struct backing b;
        pthread_t other;

        root(&b, &t, false);
        told.hold = true;
        start_writer(&first, b.hva);
        sem_wait(&told.held);
        start_writer(&second, b.hva + PAGE);
        rest(30);
        pthread_create(&other, NULL, release_soon, NULL); /* when it has been asked to end */
        cow_trap.destroy(&b);
        pthread_join(first.thread, NULL);
        pthread_join(second.thread, NULL);
        pthread_join(other, NULL);
        assert_int_equal(told.total, 1); /* the second was let go by the end */
        assert_int_equal(b.hva[PAGE], 0x77);
        b.cow = &cow_private;
        backing_destroy(&b);
        drop(&t);
}

static unsigned open_fds(void)
{
        unsigned n = 0;

        for (int fd = 0; fd < 256; fd++)
                n += syscall(SYS_fcntl, fd, 1 /* F_GETFD */) >= 0;
        return n;
}

static void an_unused_one_can_be_destroyed(void **state)
{
        unsigned before = open_fds();
        struct backing b;

        assert_int_equal(backing_reserve(&b, SIZE, &err), 0);
        set_trap(&b);
        backing_destroy(&b);
        assert_int_equal(open_fds(), before);
}

/* --- refusals --- */

static void try_in_child(int expected, const char *word)
{
        struct backing b;
        unsigned before;
        int r;

        if (backing_reserve(&b, SIZE, &err) < 0)
                _exit(90);
        before = open_fds();
        r = backing_set_cow(&b, &cow_trap, &(struct cow_env){0}, &err);
        if (r != expected || !strstr(err.text, word) ||
            !strstr(err.text, "use cow engine private") || strchr(err.text, '\n')) {
                fprintf(stderr, "# got %d: %s\n", r, err.text);
                _exit(1);
        }
        b.cow->destroy(&b);
        b.cow = &cow_private;
        _exit(open_fds() == before ? 0 : 2);
}

static void expect_child(pid_t pid)
{
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* Nobody in particular, as far as the system call and the device are concerned. */
static void lose_privileges(void)
{
        if (geteuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
                _exit(91);
        prctl(PR_SET_DUMPABLE, 1); /* or /proc/self belongs to root */
}

static bool anybody_may(void)
{
        FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
        int value = f ? fgetc(f) : '0';
        pid_t pid = fork();
        int status = 0;

        if (f)
                fclose(f);
        if (pid == 0) {
                lose_privileges();
                _exit(access("/dev/userfaultfd", R_OK | W_OK) == 0);
        }
        waitpid(pid, &status, 0);
        return value == '1' || status != 0;
}

static void who_may_not_is_told_what_to_use(void **state)
{
        pid_t pid;

        if (anybody_may()) {
                print_message("anybody may have a userfaultfd here\n");
                skip();
        }
        pid = fork();
        if (pid == 0) {
                lose_privileges();
                try_in_child(-EPERM, "CAP_SYS_PTRACE");
        }
        expect_child(pid);
}

/* Root, but without what the system call asks for: its device does. */
static void the_device_will_do(void **state)
{
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct caps[2];
        pid_t pid;

        if (access("/dev/userfaultfd", R_OK | W_OK) || geteuid()) {
                print_message("no access to /dev/userfaultfd\n");
                skip();
        }
        pid = fork();
        if (pid == 0) {
                int fd;

                if (syscall(SYS_capget, &head, caps))
                        _exit(90);
                caps[0].effective &= ~(1u << CAP_SYS_PTRACE);
                caps[0].permitted &= ~(1u << CAP_SYS_PTRACE);
                if (syscall(SYS_capset, &head, caps))
                        _exit(91);
                _exit(uffd_open(&fd, &err) < 0);
        }
        expect_child(pid);
}

/* A filter that answers system call @nr (if its second argument is @arg, unless that is 0). */
static void answer(unsigned nr, uint32_t arg, unsigned e)
{
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
                BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, arg, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | e),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog prog = {.len = sizeof code / sizeof *code, .filter = code};

        if (arg)
                code[3].code = BPF_JMP | BPF_JEQ | BPF_K;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &prog))
                _exit(92);
}

/* UFFDIO_API and UFFDIO_REGISTER as a system call's second argument. */
#define API_REQUEST      0xc018aa3fu
#define REGISTER_REQUEST 0xc020aa00u

static void kernels_that_cannot_are_refused(void **state)
{
        pid_t pid = fork();

        if (pid == 0) { /* the features are too new */
                answer(SYS_ioctl, API_REQUEST, EINVAL);
                try_in_child(-ENOTSUP, "Linux 6.4");
        }
        expect_child(pid);
        if (anybody_may())
                return;
        pid = fork();
        if (pid == 0) { /* the system call does not exist, and the device is not ours */
                lose_privileges();
                answer(SYS_userfaultfd, 0, ENOSYS);
                try_in_child(-ENOTSUP, "this kernel has none");
        }
        expect_child(pid);
}

/* A freeze that cannot be caught does not happen; the root runs on as before. */
static void a_freeze_that_cannot_be_armed_fails_alone(void **state)
{
        pid_t pid = fork();

        if (pid == 0) {
                struct backing_freeze f;
                struct backing b;
                bool huge;

                if (backing_create(&b, SIZE, false, &huge, &err) < 0)
                        _exit(90);
                set_trap(&b);
                b.hva[0] = 1;
                answer(SYS_ioctl, REGISTER_REQUEST, EINVAL);
                if (backing_freeze_prepare(&b, &f, &err) < 0)
                        _exit(93);
                if (backing_freeze(&b, &f, &err) != -ENOTSUP ||
                    !strstr(err.text, "cow engine private"))
                        _exit(94);
                backing_freeze_end(&f);
                b.hva[0]++;
                b.hva[PAGE] = 3;
                if (b.nlayers || b.hva[0] != 2 || pread(b.shared_fd, &f, 1, PAGE) != 1 ||
                    *(char *)&f != 3)
                        _exit(95);
                backing_destroy(&b);
                _exit(0);
        }
        expect_child(pid);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_page_is_told_once_and_before_it_is_written),
                TEST(many_writers_of_one_page_tell_it_once),
                TEST(a_reset_is_of_interrupted_writes_too),
                TEST(writes_of_the_kernel_are_caught),
                TEST(what_is_listed_is_what_was_written),
                TEST(clones_of_clones_have_all_pages),
                TEST(destroying_lets_go_whoever_waits),
                TEST(an_unused_one_can_be_destroyed),
                TEST(who_may_not_is_told_what_to_use),
                TEST(the_device_will_do),
                TEST(kernels_that_cannot_are_refused),
                TEST(a_freeze_that_cannot_be_armed_fails_alone),
        };

        int fd;

        if (uffd_open(&fd, &err) < 0) {
                printf("1..0 # SKIP %s\n", err.text);
                return 0;
        }
        close(fd);
        return cmocka_run_group_tests_name("cow_trap", tests, NULL, NULL);
}
