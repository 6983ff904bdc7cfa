/* SPDX-License-Identifier: Apache-2.0 */
/* Figures for people: each function fills @buf (HUMAN_MAX bytes) and returns it. */
#ifndef RAMET_CLI_HUMAN_H
#define RAMET_CLI_HUMAN_H

#include <stdint.h>

#define HUMAN_MAX 32

const char *human_time(char *buf, uint64_t ns);     /* "0.31 ms", "41.2 ms", "1.25 s" */
const char *human_bytes(char *buf, uint64_t bytes); /* measured: "119.2 MiB", "12 KiB" */
const char *human_size(char *buf, uint64_t bytes);  /* chosen: "128 MiB", "1 GiB" */
const char *human_uptime(char *buf, uint64_t ns);   /* "12 s", "3 min", "2 h 05 min" */

#endif
