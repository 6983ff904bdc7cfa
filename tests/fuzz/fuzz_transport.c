/* SPDX-License-Identifier: Apache-2.0 */
/* The registers of the transport, in any order and width, of a device with one queue or with two;
 * the loop runs only when the input says so, so that vCPUs and loop meet in every state. */
#include "guest.h"

/* Those that do something, and a few more. */
static const uint16_t registers[] = {
        VIRTIO_MMIO_MAGIC_VALUE,
        VIRTIO_MMIO_DEVICE_FEATURES,
        VIRTIO_MMIO_DEVICE_FEATURES_SEL,
        VIRTIO_MMIO_DRIVER_FEATURES,
        VIRTIO_MMIO_DRIVER_FEATURES_SEL,
        VIRTIO_MMIO_QUEUE_SEL,
        VIRTIO_MMIO_QUEUE_NUM_MAX,
        VIRTIO_MMIO_QUEUE_NUM,
        VIRTIO_MMIO_QUEUE_READY,
        VIRTIO_MMIO_QUEUE_NOTIFY,
        VIRTIO_MMIO_INTERRUPT_STATUS,
        VIRTIO_MMIO_INTERRUPT_ACK,
        VIRTIO_MMIO_STATUS,
        VIRTIO_MMIO_QUEUE_DESC_LOW,
        VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
        VIRTIO_MMIO_QUEUE_USED_LOW,
        VIRTIO_MMIO_QUEUE_USED_HIGH,
        VIRTIO_MMIO_SHM_LEN_LOW,
        VIRTIO_MMIO_CONFIG_GENERATION,
        VIRTIO_MMIO_CONFIG,
        VIRTIO_MMIO_CONFIG + 8,
};

/* By a vCPU of which there are many: others may be held meanwhile. Only status 0 holds one. */
static void write_register(unsigned offset, unsigned len, uint64_t value)
{
        int held = atomic_load(&g.v.f.held);

        fake_write(&g.v.f, 0, offset, len, value);
        if (offset != VIRTIO_MMIO_STATUS || len != 4 || (uint32_t)value)
                assert_int_equal(atomic_load(&g.v.f.held), held);
}

static void one_step(struct input *in)
{
        uint8_t op = take8(in);
        unsigned offset = registers[op % (sizeof registers / sizeof registers[0])];

        switch (take8(in) & 15) {
        case 0:
                fake_read(&g.v.f, 0, offset, 4);
                break;
        case 1:
                fake_read(&g.v.f, 0, take16(in), 1u << (op & 3));
                break;
        case 2:
                write_register(take16(in), 1u << (op & 3), take64(in));
                break;
        case 3:
                write_register(offset, 4, take32(in));
                break;
        case 4:
        case 5:
        case 6:
                write_register(offset, 4, take8(in));
                break;
        case 7: /* one bit more, as a driver does */
                vfake_add_status(&g.v, 1u << (op & 7));
                break;
        case 8:
                write_register(VIRTIO_MMIO_STATUS, 4, 0);
                break;
        case 9:
                assert_int_equal(loop_step(g.v.f.env.loop, 0), 0);
                break;
        case 10:
                guest_run();
                break;
        case 11:
                guest_quiesce();
                break;
        case 12:
                g.v.f.ops->resume(g.v.f.dev);
                break;
        case 13:
                guest_save_restore();
                break;
        case 14:
                guest_run();
                guest_start(in);
                break;
        default:
                guest_offer(in, op % guest_queues());
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        struct input in = {data, len};

        guest_begin(take8(&in) & 1 ? &rng_ops : &virtio_console_ops);
        while (in.left > 0)
                one_step(&in);
        guest_run();
        guest_recover();
        guest_end();
        return 0;
}
