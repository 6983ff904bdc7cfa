/* SPDX-License-Identifier: Apache-2.0 */
/* Machines that run the guest "litmus": see litmus_rig.h. */
#include "litmus_rig.h"

#include <stdlib.h>
#include <string.h>

#define BOOT_SECONDS 60

uint64_t litmus_rounds;

int litmus_boot(struct rig *r, const char *cmdline, unsigned vcpus, uint64_t memory_bytes,
                struct template **tmpl, struct err *err)
{
        struct vm_freeze_stats stats;
        int ret = rig_try_boot(r, "litmus.elf", cmdline, vcpus, memory_bytes, true, err);

        if (ret == 0) {
                rig_until(r, rig_forked, BOOT_SECONDS);
                ret = vm_freeze(r->vm, 0, true, tmpl, &stats, err);
        }
        if (ret == 0)
                return 0;
        if (!rig_refused(ret, err))
                fail_msg("%s", err->text);
        rig_free(r);
        return ret;
}

void litmus_end(struct rig *r, unsigned seconds)
{
        const char *rounds;

        rig_until(r, rig_exited, seconds);
        rig_free(r);
        rounds = strstr(r->text, "rounds=");
        if (!rounds || !strstr(rounds, " bad=0")) {
                print_message("%s\n", r->text);
                fail_msg("%s; console: %s", r->exit.text, r->text);
        }
        litmus_rounds += strtoull(rounds + strlen("rounds="), NULL, 10);
}
