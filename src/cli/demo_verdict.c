/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo's verdict. The guest's header says how memory is filled and hashed; from the seed alone
 * every hash follows, so a guest that lies to itself (or a fork that gives a clone the wrong page)
 * is found out here. What all machines have in common is computed once.
 */
#include "cli/demo_verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "examples/guest/demo/demo_pattern.h"

bool demo_parse_report(const char *text, size_t len, struct demo_report *report)
{
        struct demo_report r = {.got = true};
        char line[256];

        if (len >= sizeof line)
                return false;
        memcpy(line, text, len);
        line[len] = '\0';
        if (sscanf(line, "demo: number=%u of=%u sees=%" SCNx64 " own=%" SCNx64 " rest=%" SCNx64,
                   &r.number, &r.of, &r.sees, &r.own, &r.rest) != 5)
                return false;
        *report = r;
        return true;
}

void demo_truth_init(struct demo_truth *truth, uint64_t seed, uint64_t fill_mib)
{
        *truth = (struct demo_truth){.seed = seed, .fill_mib = fill_mib};
        for (uint64_t page = 0; page < fill_mib * DEMO_PAGES_MIB; page++) {
                uint64_t hash = demo_hash_filled(seed, page);

                truth->sees += hash;
                for (unsigned number = 0; number < 2; number++)
                        if (!demo_page_is_own(page, number, DEMO_EVERY))
                                truth->rest[number] += hash;
        }
}

static uint64_t own_hash(const struct demo_truth *truth, unsigned number)
{
        uint64_t seed = demo_own_seed(truth->seed, number), sum = 0;

        for (uint64_t page = 0; page < truth->fill_mib * DEMO_PAGES_MIB; page++)
                if (demo_page_is_own(page, number, DEMO_EVERY))
                        sum += demo_hash_filled(seed, page);
        return sum;
}

struct demo_verdict demo_judge(const struct demo_truth *truth, const struct demo_report *report,
                               unsigned number, unsigned of)
{
        return (struct demo_verdict){
                .sees_parent = report->got && report->sees == truth->sees,
                .own_writes = report->got && report->own == own_hash(truth, number) &&
                              report->rest == truth->rest[number % 2],
                .numbered = report->got && report->number == number && report->of == of,
        };
}
