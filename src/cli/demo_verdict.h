/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the demo's machines must print, computed here without them, and how that compares with what
 * they did print.
 */
#ifndef RAMET_CLI_DEMO_VERDICT_H
#define RAMET_CLI_DEMO_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One machine's last line. */
struct demo_report {
        bool got;
        unsigned number, of;
        uint64_t sees, own, rest; /* hashes: see demo_pattern.h */
};

/* "demo: number=3 of=4 sees=<hex> own=<hex> rest=<hex> ..." False: it is another line. */
bool demo_parse_report(const char *text, size_t len, struct demo_report *report);

/* The hashes that do not depend on the machine. */
struct demo_truth {
        uint64_t seed, fill_mib;
        uint64_t sees;    /* all of the memory, as the parent filled it */
        uint64_t rest[2]; /* the pages that a machine of even, odd number leaves alone */
};

void demo_truth_init(struct demo_truth *truth, uint64_t seed, uint64_t fill_mib);

struct demo_verdict {
        bool sees_parent; /* after the fork it had the parent's memory */
        bool own_writes;  /* at its end its own pages had its writes, all others the parent's bytes
                           */
        bool numbered;    /* it knew which clone it was */
};

/* @number: which it was, of @of (0 of N: the parent). */
struct demo_verdict demo_judge(const struct demo_truth *truth, const struct demo_report *report,
                               unsigned number, unsigned of);

#endif
