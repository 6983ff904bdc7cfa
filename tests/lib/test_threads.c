/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several threads: on one machine, where they come in one after the other and one that waits gives
 * way, and on machines of their own with templates in common. RAMET_LIB_ROUNDS: how often (40), for
 * a longer run, with a sanitizer for example.
 */
#include "api.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define THREADS 3

static unsigned rounds(void)
{
        const char *text = getenv("RAMET_LIB_ROUNDS");

        return text ? (unsigned)strtoul(text, NULL, 10) : 40;
}

/* Of a thread that is not cmocka's: no assertions there. */
struct worker {
        pthread_t thread;
        struct ramet_vm *vm;
        struct ramet_template *tmpl;
        _Atomic unsigned done; /* rounds, or rings */
        _Atomic bool ended;
        unsigned wait_ms;
        int ret; /* of the call that failed */
        char text[256];
        const char *what;
};

static bool failed(struct worker *w, int ret, int expected, const char *what)
{
        if (ret == expected)
                return false;
        w->ret = ret;
        w->what = what;
        snprintf(w->text, sizeof w->text, "%s", ramet_last_error(NULL));
        return true;
}

static void start(struct worker *w, void *(*fn)(void *))
{
        assert_int_equal(pthread_create(&w->thread, NULL, fn, w), 0);
}

static void join(struct worker *w)
{
        pthread_join(w->thread, NULL);
        if (w->what)
                fail_msg("%s: %d: %s", w->what, w->ret, w->text);
}

/* Waits for ever, and lets each ring go on, until the machine has ended. */
static void *listen(void *data)
{
        struct worker *w = data;
        struct ramet_vm_event e;

        for (;;) {
                if (failed(w, ramet_vm_next(w->vm, RAMET_FOREVER, &e), 1, "next"))
                        break;
                if (e.type == RAMET_VM_EXIT)
                        break;
                w->done++;
                if (failed(w, ramet_vm_continue(w->vm), 0, "continue"))
                        break;
        }
        w->ended = true;
        return NULL;
}

static void until_done(const struct worker *w, unsigned n)
{
        for (unsigned ms = 0; ms < 10000 && w->done < n && !w->ended; ms++)
                api_nap(1);
        if (w->done < n)
                fail_msg("%u of %u, and no more: %s", w->done, n, w->text);
}

static void one_that_waits_gives_way(void **state)
{
        struct worker w = {.vm = api_vm()};
        struct ramet_vm_event e;
        uint64_t v;

        start(&w, listen);
        api_nap(20); /* it waits, most likely, for a machine that does not run */
        for (unsigned i = 0; i < 100; i++)
                api_ok(ramet_vm_read(w.vm, 0, &v, sizeof v));
        assert_int_equal(w.done, 0);
        assert_int_equal(ramet_vm_next(w.vm, RAMET_MILLISECOND, &e), 0);
        api_ok(ramet_vm_start(w.vm));
        until_done(&w, 3);
        api_order(w.vm, 0, SERVANT_POWEROFF, 0, 0, 0);
        join(&w);
        ramet_vm_destroy(w.vm);
}

static uint64_t now_ns(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * RAMET_SECOND + (uint64_t)t.tv_nsec;
}

/* For an event that does not come. Notes how long that took. */
static void *wait_in_vain(void *data)
{
        struct worker *w = data;
        struct ramet_vm_event e;
        const uint64_t t0 = now_ns(CLOCK_MONOTONIC);

        if (!failed(w, ramet_vm_next(w->vm, w->wait_ms * RAMET_MILLISECOND, &e), 0, "next"))
                w->done = (unsigned)((now_ns(CLOCK_MONOTONIC) - t0) / RAMET_MILLISECOND);
        return NULL;
}

static void *count_rings(void *data)
{
        struct worker *w = data;
        struct ramet_vm_event e;

        while (!w->ended) {
                int r = ramet_vm_next(w->vm, 20 * RAMET_MILLISECOND, &e);

                if (failed(w, r < 0 ? r : 0, 0, "next"))
                        break;
                if (r == 0 || e.type != RAMET_VM_DOORBELL)
                        continue;
                w->done++;
                if (failed(w, ramet_vm_continue(w->vm), 0, "continue"))
                        break;
        }
        return NULL;
}

/* They do not wake one another, the time of each is its own, and whoever it is that is inside, a
 * call of another thread gets in, and no ring is lost or told twice. */
static void several_wait_in_peace(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct worker ears[2] = {{.vm = vm}, {.vm = vm}};
        struct worker brief = {.vm = vm, .wait_ms = 200}, patient = {.vm = vm, .wait_ms = 1000};
        struct servant_mail mail;
        uint64_t cpu_ns;

        start(&brief, wait_in_vain);
        api_nap(20);
        start(&patient, wait_in_vain);
        api_nap(20);
        cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        api_nap(100);
        cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
        if (cpu_ns > 20 * RAMET_MILLISECOND)
                fail_msg("two threads that wait use %.1f ms in 100", (double)cpu_ns / 1e6);
        for (unsigned i = 0; i < 10; i++)
                api_get_mail(vm, 0, &mail);
        join(&brief);
        join(&patient);
        assert_in_range(brief.done, brief.wait_ms, patient.wait_ms - 100);
        assert_true(patient.done >= patient.wait_ms);

        api_ok(ramet_vm_continue(vm));
        start(&ears[0], count_rings);
        start(&ears[1], count_rings);
        for (unsigned ms = 0; ms < 10000 && ears[0].done + ears[1].done < 100; ms++)
                api_nap(1);
        api_ok(ramet_vm_pause(vm));
        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_start(vm));
        for (unsigned ms = 0; ms < 10000 && mail.spins == 0; ms++) {
                api_get_mail(vm, 0, &mail);
                api_nap(1);
        }
        ears[0].ended = ears[1].ended = true;
        join(&ears[0]);
        join(&ears[1]);
        assert_true(mail.spins > 0 && mail.rounds > 100);
        assert_int_equal(ears[0].done + ears[1].done, mail.rounds - 1);
        ramet_vm_destroy(vm);
}

/* Waits for an end that does not come; rings are dropped. */
static void *run_past_rings(void *data)
{
        struct worker *w = data;
        struct ramet_vm_event e;

        failed(w, ramet_vm_run_until(w->vm, 0, w->wait_ms * RAMET_MILLISECOND, &e), 0, "run_until");
        return NULL;
}

/* A vCPU whose event one thread has taken stays where it is, however many of others another thread
 * drops meanwhile. */
static void what_one_holds_another_does_not_let_go(void **state)
{
        struct worker w = {.vm = api_ready(2), .wait_ms = 300};
        struct servant_mail before[2], after[2];
        struct ramet_vm_event e;

        start(&w, run_past_rings);
        api_nap(50);
        assert_int_equal(api_ok(ramet_vm_next(w.vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        for (unsigned cpu = 0; cpu < 2; cpu++)
                api_get_mail(w.vm, cpu, &before[cpu]);
        api_nap(50);
        for (unsigned cpu = 0; cpu < 2; cpu++)
                api_get_mail(w.vm, cpu, &after[cpu]);
        assert_int_equal(after[e.vcpu].rounds, before[e.vcpu].rounds);
        assert_true(after[!e.vcpu].rounds > before[!e.vcpu].rounds);
        join(&w);
        ramet_vm_destroy(w.vm);
}

/* All that a second thread may do while the first one waits. Neither starves. */
static void one_waits_and_one_works(void **state)
{
        struct worker w = {.vm = api_vm()};
        const unsigned n = rounds();

        api_ok(ramet_vm_start(w.vm));
        start(&w, listen);
        until_done(&w, 1);
        for (unsigned i = 0; i < n; i++) {
                struct ramet_template *tmpl;
                const unsigned before = w.done;
                struct servant_mail mail;
                struct ramet_vm *clone;

                api_ok(ramet_vm_pause(w.vm));
                api_get_mail(w.vm, 0, &mail);
                api_ok(ramet_vm_freeze(w.vm, "now", &tmpl));
                api_ok(ramet_vm_start(w.vm));
                clone = api_spawn(tmpl);
                ramet_template_release(tmpl);
                assert_true(api_until(clone, RAMET_VM_DOORBELL).doorbell.value >= mail.rounds);
                ramet_vm_destroy(clone);
                until_done(&w, before + 1);
        }
        api_order(w.vm, 0, SERVANT_POWEROFF, 0, 0, 0);
        join(&w);
        ramet_vm_destroy(w.vm);
}

static void *pause_it(void *data)
{
        struct worker *w = data;

        failed(w, ramet_vm_pause(w->vm), 0, "pause");
        w->done = 1;
        return NULL;
}

static void others_wait_for_the_end_of_a_section(void **state)
{
        struct worker w = {.vm = api_ready(1)};
        void *p;

        api_ok(ramet_vm_begin(w.vm));
        api_ok(ramet_vm_span(w.vm, SERVANT_AREA, 8, false, &p));
        start(&w, pause_it);
        api_nap(30);
        assert_int_equal(w.done, 0);
        api_ok(ramet_vm_end(w.vm));
        join(&w);
        assert_int_equal(w.done, 1);
        ramet_vm_destroy(w.vm);
}

/* --- machines of their own --- */

static int fill(struct ramet_vm *vm, uint64_t value)
{
        struct servant_mail mail;
        struct ramet_vm_event e;
        int ret = ramet_vm_read(vm, SERVANT_MAIL, &mail, sizeof mail);

        mail.order = SERVANT_FILL;
        mail.value = value;
        mail.address = SERVANT_AREA;
        mail.number = 8;
        if (ret == 0)
                ret = ramet_vm_write(vm, SERVANT_MAIL, &mail, sizeof mail);
        return ret ? ret : ramet_vm_run_until(vm, RAMET_VM_DOORBELL, ENDLESS, &e);
}

static int check(struct ramet_vm *vm, uint64_t value)
{
        uint64_t v = ~value;
        int ret = ramet_vm_read(vm, SERVANT_AREA + 7 * 4096, &v, sizeof v);

        return ret ? ret : v != value;
}

/* A life of a clone, a reset, another life, a template of that, a clone of a clone. */
static bool lives(struct worker *w, struct ramet_vm *clone, unsigned i)
{
        const uint64_t mine = (uint64_t)(uintptr_t)w + i;
        struct ramet_template *tmpl = NULL;
        struct ramet_vm *child = NULL;
        bool bad;

        bad = failed(w, fill(clone, mine), 1, "a clone's fill") ||
              failed(w, check(clone, mine), 0, "a clone's memory") ||
              failed(w, ramet_vm_reset(clone), 0, "reset") ||
              failed(w, check(clone, 0), 0, "memory after reset") ||
              failed(w, fill(clone, mine + 1), 1, "fill after reset") ||
              failed(w, ramet_vm_freeze(clone, "mine", &tmpl), 0, "freeze") ||
              failed(w, ramet_template_spawn(tmpl, NULL, &child), 0, "spawn of a clone") ||
              failed(w, check(child, mine + 1), 0, "a child's memory") ||
              failed(w, fill(child, mine + 2), 1, "a child's fill") ||
              failed(w, check(clone, mine + 1), 0, "memory of its parent");
        ramet_template_release(tmpl);
        ramet_vm_destroy(child);
        return !bad;
}

static void *work(void *data)
{
        struct worker *w = data;
        bool good = true;

        for (unsigned i = 0; good && i < rounds() / 4; i++) {
                struct ramet_vm *clone = NULL;

                ramet_template_ref(w->tmpl);
                good = !failed(w, ramet_template_spawn(w->tmpl, NULL, &clone), 0, "spawn");
                ramet_template_release(w->tmpl);
                good = good && lives(w, clone, i);
                ramet_vm_destroy(clone);
                w->done++;
        }
        return NULL;
}

static void machines_and_templates_of_several_threads(void **state)
{
        struct ramet_template *tmpl = api_template(1);
        struct worker w[THREADS] = {0};

        for (unsigned i = 0; i < THREADS; i++) {
                w[i].tmpl = tmpl;
                start(&w[i], work);
        }
        for (unsigned i = 0; i < THREADS; i++)
                join(&w[i]);
        for (unsigned i = 0; i < THREADS; i++)
                assert_int_equal(w[i].done, rounds() / 4);
        ramet_template_release(tmpl);
}

/* The thread that made a machine is gone, and with it what the kernel kept for it. */
static void *make_ready(void *data)
{
        struct worker *w = data;
        const struct ramet_vm_config config = api_config();
        struct ramet_vm_event e;

        if (!failed(w, ramet_vm_create(api_ctx, &config, &w->vm), 0, "create"))
                failed(w, ramet_vm_run_until(w->vm, RAMET_VM_DOORBELL, ENDLESS, &e), 1, "run");
        return NULL;
}

static void a_machine_outlives_its_maker(void **state)
{
        struct worker w = {0};

        start(&w, make_ready);
        join(&w);
        api_do(w.vm, SERVANT_FILL, 1, SERVANT_AREA, 1);
        ramet_vm_destroy(w.vm);
}

/* --- from a handler: a call that waited for the machine would wait for itself --- */

#define CALLS 12

struct calls {
        struct ramet_vm *vm, *other;
        struct ramet_template *tmpl;
        int ret[CALLS];
        unsigned n;
        char text[256];
};

static void call_all(void *data, uint64_t offset, unsigned length, uint64_t value)
{
        const struct ramet_vm_config config = {.size = sizeof config, .kernel = "/nowhere"};
        struct calls *c = data;
        struct ramet_template *tmpl;
        struct ramet_vm *vm;
        struct ramet_vm_event e;
        uint64_t word;
        int *ret = c->ret;

        *ret++ = ramet_vm_read(c->vm, 0, &word, sizeof word);
        *ret++ = ramet_vm_start(c->vm);
        *ret++ = ramet_vm_pause(c->vm);
        *ret++ = ramet_vm_next(c->vm, 0, &e);
        *ret++ = ramet_vm_run_until(c->vm, RAMET_VM_ANY, 0, &e);
        *ret++ = ramet_vm_continue(c->vm);
        *ret++ = ramet_vm_begin(c->vm);
        *ret++ = ramet_vm_freeze(c->vm, "", &tmpl);
        *ret++ = ramet_vm_reset(c->vm);
        *ret++ = ramet_vm_pause(c->other);
        *ret++ = ramet_vm_create(api_ctx, &config, &vm);
        *ret++ = ramet_template_spawn(c->tmpl, NULL, &vm);
        ramet_vm_destroy(c->vm); /* is not, and there is an error to be read */
        snprintf(c->text, sizeof c->text, "%s", ramet_last_error(NULL));
        c->n++;
}

static void a_handler_may_not_call(void **state)
{
        const struct ramet_handler handler = {.size = sizeof handler, .write = call_all};
        struct ramet_template *tmpl = api_template(1);
        struct calls c = {.vm = api_spawn(tmpl), .other = api_spawn(tmpl), .tmpl = tmpl};

        api_ok(ramet_vm_handle(c.vm, RAMET_PIO, 0x500, 4, &handler, &c));
        api_until(c.vm, RAMET_VM_DOORBELL);
        api_do(c.vm, SERVANT_OUT, 1, 0x500, 4);
        assert_int_equal(c.n, 1);
        for (unsigned i = 0; i < CALLS; i++)
                assert_int_equal(c.ret[i], -EDEADLK);
        assert_non_null(strstr(c.text, "handler"));
        api_do(c.vm, SERVANT_FILL, 1, SERVANT_AREA, 1);
        ramet_vm_destroy(c.vm);
        ramet_vm_destroy(c.other);
        ramet_template_release(tmpl);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_that_waits_gives_way),
                cmocka_unit_test(several_wait_in_peace),
                cmocka_unit_test(what_one_holds_another_does_not_let_go),
                cmocka_unit_test(one_waits_and_one_works),
                cmocka_unit_test(others_wait_for_the_end_of_a_section),
                cmocka_unit_test(machines_and_templates_of_several_threads),
                cmocka_unit_test(a_machine_outlives_its_maker),
                cmocka_unit_test(a_handler_may_not_call),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_threads", tests, NULL, NULL);
}
