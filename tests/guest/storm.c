// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that never gives its devices a rest. All of its processors make the queues of all devices
 * full, over and over, and notify of them without looking at what comes back: so the loop of its
 * machine always has work. It prints "storm: on" and goes on for "ms=N", else for ever; then
 * "storm: off: N rounds".
 *
 * "reset=1": its last processor resets the first device again and again instead. "console=0" leaves
 * the console alone. Disks are read ("write=1": written) in pieces of 4 KiB.
 */
#include "virtio_driver.h"

#define DEVS  8
#define PIECE 4096

static struct vdev devs[DEVS];
static struct vq queues[DEVS];
static struct vq_mem mems[DEVS];
static struct virtio_blk_outhdr hdrs[DEVS];
static volatile uint8_t status[DEVS];
static _Alignas(4096) uint8_t data[DEVS][PIECE];
static unsigned ndevs;
static volatile int on, off;
static volatile uint64_t rounds;

static void add(uint32_t id, unsigned nth)
{
        struct vdev *dev = &devs[ndevs];
        struct vring_desc *d = mems[ndevs].desc;
        unsigned n = 0;

        if (!virtio_find(dev, id, nth) || virtio_begin(dev, ~0ull) ||
            vq_setup(&queues[ndevs], dev, id == VIRTIO_ID_CONSOLE, 0, &mems[ndevs]))
                return;
        virtio_go(dev);
        if (id == VIRTIO_ID_BLOCK) {
                int out = cmd_u64("write", 0) != 0;

                hdrs[ndevs].type = out ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
                d[0] = (struct vring_desc){(uint64_t)&hdrs[ndevs], 16, VRING_DESC_F_NEXT, 1};
                d[1] = (struct vring_desc){(uint64_t)data[ndevs], PIECE,
                                           VRING_DESC_F_NEXT | (out ? 0 : VRING_DESC_F_WRITE), 2};
                d[2] = (struct vring_desc){(uint64_t)&status[ndevs], 1, VRING_DESC_F_WRITE, 0};
        } else {
                n = id == VIRTIO_ID_CONSOLE ? 1 : 64;
                d[0] = (struct vring_desc){(uint64_t)data[ndevs], n,
                                           id == VIRTIO_ID_CONSOLE ? 0 : VRING_DESC_F_WRITE, 0};
        }
        ndevs++;
}

static uint64_t storm(void *arg)
{
        int resets = arg && cmd_u64("reset", 0);

        while (!off) {
                if (resets)
                        virtio_begin(&devs[0], ~0ull);
                for (unsigned i = resets; i < ndevs; i++) {
                        struct vq_mem *m = &mems[i];

                        m->avail.idx = (uint16_t)(m->used.idx + queues[i].size);
                        vq_notify(&queues[i]);
                }
                rounds++;
        }
        return 0;
}

static void cpu_work(unsigned cpu)
{
        if (cpu) {
                while (!on)
                        sleep_ms(1);
                run_user(storm, (void *)(uint64_t)(cpu + 1 == cpu_count()));
                return;
        }
        for (unsigned i = 0; i < 4; i++)
                add(VIRTIO_ID_BLOCK, i);
        add(VIRTIO_ID_RNG, 0);
        if (cmd_u64("console", 1))
                add(VIRTIO_ID_CONSOLE, 0);
        printf("storm: on, %u devices\n", ndevs);
        on = 1;
        if (!cmd_u64("ms", 0))
                run_user(storm, NULL);
        sleep_ms((unsigned)cmd_u64("ms", 0));
        off = 1;
        printf("storm: off: %lu rounds\n", rounds);
}

void guest_main(void)
{
        smp_run(cpu_work);
}
