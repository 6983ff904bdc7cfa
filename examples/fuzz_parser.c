/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot fuzzer: finds the planted bug in a guest's parser (guest/parser/parser.c).
 *
 *      fuzz_parser [GUEST [SECONDS]]           by default guest/parser.elf, 60
 *
 * The guest boots once, to the point where it waits for a packet. Each packet is then written into
 * its memory, it parses it, and it is reset: nothing of one packet reaches the next. The parser
 * counts where it comes along; a packet that brought it to a new place is kept, and further ones
 * are made from those. Without that, packets at random hardly come past the header.
 *
 * It prints packets per second as it goes, and in the end the packet that made the guest crash, in
 * hexadecimal, and where. The exit status is 0 when it has found one, 1 when not, 2 for errors.
 */
#include <ramet/fuzz.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct packet {
        size_t len;
        uint8_t data[256];
};

static struct packet kept[1024] = {{21, "RM\1\1\5hello\4\5\2\0\0\0\0\2\1\7"}}; /* a valid one */
static size_t nkept = 1;
static uint8_t places[4096]; /* how often the parser came there so far */

static size_t draw(size_t n) /* the same ones each time */
{
        return (size_t)random() % n;
}

static uint8_t draw_byte(void)
{
        return (uint8_t)(draw(3) ? draw(6) : draw(256)); /* small numbers mean something */
}

/* Take @out bytes out at @at, and put in @in bytes of @from, or drawn ones. */
static void change(struct packet *p, size_t at, size_t out, const uint8_t *from, size_t in)
{
        out = out < p->len - at ? out : p->len - at;
        in = in < sizeof p->data - p->len ? in : sizeof p->data - p->len;
        memmove(p->data + at + in, p->data + at + out, p->len - at - out);
        for (size_t i = 0; i < in; i++)
                p->data[at + i] = from ? from[i] : draw_byte();
        p->len += in - out;
}

static void mutate(struct packet *p)
{
        for (size_t i = draw(3) + 1; i > 0; i--) {
                size_t at = draw(p->len + 1), what = draw(6);
                const struct packet *other = &kept[draw(nkept)];
                size_t begin = draw(other->len + 1);

                if (what < 2)
                        change(p, at, 1, NULL, 1);
                else if (what == 2 && at < p->len)
                        p->data[at] ^= (uint8_t)(1u << draw(8));
                else if (what == 3)
                        change(p, at, 0, NULL, draw(8) + 1);
                else if (what == 4)
                        change(p, at, 0, other->data + begin, draw(other->len - begin + 1));
                else
                        change(p, at, draw(8) + 1, NULL, 0);
        }
}

static double seconds(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(unsigned long n, double since)
{
        printf("%6.1f s %9lu packets %8.0f/s %4zu kept\n", since, n, (double)n / since, nkept);
        fflush(stdout);
}

static void tell_crash(struct ramet_fuzz *fuzz, const struct packet *p)
{
        static char report[16384] = "";

        ramet_fuzz_report(fuzz, report, sizeof report);
        printf("the guest crashed with ");
        for (size_t i = 0; i < p->len; i++)
                printf("%02x", p->data[i]);
        printf("\n%s", report);
}

/* 0: a crash, 1: none, or -errno. */
static int search(struct ramet_fuzz *fuzz, double limit)
{
        double start = seconds(), told = start, now = start, every = isatty(1) ? 1 : 10;
        int outcome = RAMET_FUZZ_OK;

        for (unsigned long n = 1; outcome >= 0 && now - start < limit; n++) {
                struct ramet_fuzz_result result = {.size = sizeof result};
                struct packet p = kept[draw(nkept)];

                mutate(&p);
                outcome = ramet_fuzz_one(fuzz, p.data, p.len, &result);
                if (outcome >= 0 && result.new_counters && nkept < sizeof kept / sizeof kept[0])
                        kept[nkept++] = p;
                now = seconds();
                if (now - told >= every || outcome == RAMET_FUZZ_CRASH)
                        tell(n, (told = now) - start);
                if (outcome == RAMET_FUZZ_CRASH) {
                        tell_crash(fuzz, &p);
                        return 0;
                }
        }
        return outcome < 0 ? outcome : 1;
}

int main(int argc, char **argv)
{
        struct ramet_vm_config config = {.size = sizeof config, .fixed_page_tables = true};
        struct ramet_guest guest = {.size = sizeof guest,
                                    .kernel = argc > 1 ? argv[1] : "guest/parser.elf",
                                    .memory_bytes = 16 << 20,
                                    .config = &config};
        struct ramet_fuzz_options options = {.size = sizeof options,
                                             .guest = &guest,
                                             .input = "input",
                                             .input_length = "input_length",
                                             .coverage = "coverage",
                                             .counters = places,
                                             .ncounters = sizeof places};
        struct ramet_fuzz *fuzz = NULL;
        struct ramet_ctx *ctx = NULL;
        int r = ramet_ctx_create(&ctx);

        r = r < 0 ? r : ramet_fuzz_create(ctx, &options, &fuzz);
        if (r == 0)
                r = search(fuzz, argc > 2 ? strtod(argv[2], NULL) : 60);
        if (r < 0)
                fprintf(stderr, "fuzz_parser: %s\n", ramet_last_error(NULL));
        ramet_fuzz_destroy(fuzz);
        ramet_ctx_destroy(ctx);
        return r < 0 ? 2 : r;
}
