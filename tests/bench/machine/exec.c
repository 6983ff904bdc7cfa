/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an input costs with ramet_fuzz_one(), as floor/exec.c measures it with bare calls.
 *
 *      exec GUEST N INPUT...
 *
 * All inputs (hexadecimal, - is the empty one) are run N times, after one round that is not
 * counted. Prints "NANOSECONDS VALUE" for each: VALUE is what the guest rang with.
 */
#include <ramet/fuzz.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INPUTS_MAX 256

struct input {
        size_t len;
        uint8_t data[2048];
};

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void check(int r)
{
        if (r < 0) {
                fprintf(stderr, "exec: %s\n", ramet_last_error(NULL));
                exit(1);
        }
}

static void parse(const char *hex, struct input *in)
{
        while (*hex != '-' && sscanf(hex + 2 * in->len, "%2hhx", &in->data[in->len]) == 1)
                in->len++;
}

static void run(struct ramet_fuzz *fuzz, const struct input *inputs, unsigned n, unsigned rounds)
{
        for (unsigned i = 0; i < n * (rounds + 1); i++) {
                const struct input *in = &inputs[i % n];
                struct ramet_fuzz_result result = {.size = sizeof result};
                uint64_t t0 = now_ns(), t;
                int r = ramet_fuzz_one(fuzz, in->data, in->len, &result);

                t = now_ns() - t0;
                check(r);
                if (r != RAMET_FUZZ_OK) {
                        fprintf(stderr, "exec: input %u: outcome %d\n", i % n, r);
                        exit(1);
                }
                if (i >= n)
                        printf("%llu %u\n", (unsigned long long)t, result.value);
        }
}

int main(int argc, char **argv)
{
        static struct input inputs[INPUTS_MAX];
        unsigned n = argc > 3 ? (unsigned)argc - 3 : 0;
        struct ramet_vm_config config = {.size = sizeof config, .fixed_page_tables = true};
        struct ramet_guest guest = {.size = sizeof guest,
                                    .kernel = argc > 3 ? argv[1] : NULL,
                                    .memory_bytes = 16 << 20,
                                    .config = &config};
        struct ramet_fuzz_options options = {.size = sizeof options,
                                             .guest = &guest,
                                             .input = "input",
                                             .input_length = "input_length"};
        struct ramet_fuzz *fuzz;
        struct ramet_ctx *ctx;

        if (n == 0 || n > INPUTS_MAX) {
                fprintf(stderr, "usage: exec GUEST N INPUT...\n");
                return 2;
        }
        for (unsigned i = 0; i < n; i++)
                parse(argv[3 + i], &inputs[i]);
        check(ramet_ctx_create(&ctx));
        check(ramet_fuzz_create(ctx, &options, &fuzz));
        run(fuzz, inputs, n, (unsigned)atoi(argv[2]));
        ramet_fuzz_destroy(fuzz);
        ramet_ctx_destroy(ctx);
        return 0;
}
