/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures for people. Times are in milliseconds below a second, since that is the scale in which
 * forks are compared; memory is in MiB wherever that leaves a digit to see.
 */
#include "cli/human.h"

#include <inttypes.h>
#include <stdio.h>

const char *human_time(char *buf, uint64_t ns)
{
        double ms = (double)ns / 1e6;

        if (ns >= 1000000000u)
                snprintf(buf, HUMAN_MAX, "%.2f s", ms / 1e3);
        else if (ms >= 100)
                snprintf(buf, HUMAN_MAX, "%.0f ms", ms);
        else if (ms >= 10)
                snprintf(buf, HUMAN_MAX, "%.1f ms", ms);
        else
                snprintf(buf, HUMAN_MAX, "%.2f ms", ms);
        return buf;
}

const char *human_bytes(char *buf, uint64_t bytes)
{
        double mib = (double)bytes / (1 << 20);

        if (mib >= 10240)
                snprintf(buf, HUMAN_MAX, "%.1f GiB", mib / 1024);
        else if (mib >= 0.1 || bytes == 0)
                snprintf(buf, HUMAN_MAX, "%.1f MiB", mib);
        else
                snprintf(buf, HUMAN_MAX, "%" PRIu64 " KiB", (bytes + 1023) / 1024);
        return buf;
}

const char *human_size(char *buf, uint64_t bytes)
{
        static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
        unsigned unit = 0;

        while (unit < 4 && bytes && bytes % 1024 == 0) {
                bytes /= 1024;
                unit++;
        }
        snprintf(buf, HUMAN_MAX, "%" PRIu64 " %s", bytes, units[unit]);
        return buf;
}

const char *human_uptime(char *buf, uint64_t ns)
{
        uint64_t s = ns / 1000000000u;

        if (s < 120)
                snprintf(buf, HUMAN_MAX, "%" PRIu64 " s", s);
        else if (s < 7200)
                snprintf(buf, HUMAN_MAX, "%" PRIu64 " min", s / 60);
        else
                snprintf(buf, HUMAN_MAX, "%" PRIu64 " h %02" PRIu64 " min", s / 3600,
                         s % 3600 / 60);
        return buf;
}
