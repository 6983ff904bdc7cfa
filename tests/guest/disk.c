// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that uses its disks. It obeys the letters of "do=" on its command line, in their order;
 * each one, for each disk, ends in a line "disk N: LETTER: ok ..." or "disk N: LETTER: FAILED ...":
 *
 *      i  what the disk is                    w  write the pattern to the range
 *      f  flush                               v  the range has the pattern
 *      d  discard the range                   W  write this machine's own pattern to the own range
 *      0  write zeroes to the range           V  the own range has this machine's own pattern
 *      u  the same, and unmap                 O  the own range has the pattern of nobody: zeros
 *      z  the range is zeros                  s  the sum of the range
 *      r  read the range, do not look
 *      R  ring the doorbell: "disk: fork: RESULT of COUNT"     t  sleep for 100 ms
 *      e  32 bytes of the entropy device: "disk: entropy: ..."
 *      c  wait for a line typed at the serial port             l  all over again, for ever
 *      x  end here with what there is
 *
 * "disks=N" (1), "start=S" (0) and "count=N" (64) sectors, "own=S" (after the range), "seed=N" (1),
 * "chunk=N" (16) sectors a request, "irq=1": wait by interrupts. The pattern differs by seed, disk
 * and sector; a machine's own one by its number in the last fork, too. It ends with "disk: done: N
 * failed", and with "irq=1" by "disk N: M interrupts".
 */
#include "virtio_driver.h"

#define SECTOR 512
#define CHUNK  128
#define DISKS  8

static struct vq_mem mems[DISKS], rng_mem;
static struct vblk disks[DISKS];
static _Alignas(4096) uint64_t data[CHUNK * SECTOR / 8];
static uint64_t first, count, own, seed, chunk;
static unsigned ndisks, failures, number;

static uint64_t word(uint64_t salt, unsigned disk, uint64_t sector, unsigned i)
{
        return (sector * 64 + i + 1) * 0x9e3779b97f4a7c15ull ^ salt << 40 ^ (uint64_t)disk << 60;
}

static void fill(uint64_t salt, unsigned disk, uint64_t sector, uint64_t n)
{
        for (uint64_t s = 0; s < n; s++)
                for (unsigned i = 0; i < SECTOR / 8; i++)
                        data[s * SECTOR / 8 + i] = word(salt, disk, sector + s, i);
}

enum look { LOOK_NOT, LOOK_PATTERN, LOOK_ZEROS, LOOK_SUM };

static void result(unsigned disk, char letter, int status, uint64_t sector)
{
        if (status)
                failures++;
        if (status == VQ_NEEDS_RESET)
                printf("disk %u: %c: FAILED needs reset, sector %lu\n", disk, letter, sector);
        else if (status == VQ_TIMEOUT)
                printf("disk %u: %c: FAILED no answer, sector %lu\n", disk, letter, sector);
        else if (status)
                printf("disk %u: %c: FAILED status %d, sector %lu\n", disk, letter, status, sector);
        else
                printf("disk %u: %c: ok\n", disk, letter);
}

static void write_range(unsigned disk, char letter, uint64_t from, uint64_t salt)
{
        int status = 0;
        uint64_t at = from;

        for (; at < from + count && !status; at += chunk) {
                uint64_t n = from + count - at < chunk ? from + count - at : chunk;

                fill(salt, disk, at, n);
                status = vblk_do(disks + disk, VIRTIO_BLK_T_OUT, at, data, (uint32_t)n * SECTOR);
        }
        result(disk, letter, status, at);
}

static void read_range(unsigned disk, char letter, uint64_t from, uint64_t salt, enum look look)
{
        uint64_t sum = 0;

        for (uint64_t at = from; at < from + count; at += chunk) {
                uint64_t n = from + count - at < chunk ? from + count - at : chunk;
                int status;

                __builtin_memset(data, 0xee, n * SECTOR);
                status = vblk_do(disks + disk, VIRTIO_BLK_T_IN, at, data, (uint32_t)n * SECTOR);
                if (status) {
                        result(disk, letter, status, at);
                        return;
                }
                for (uint64_t i = 0; i < n * SECTOR / 8; i++) {
                        uint64_t want = 0, s = at + i / (SECTOR / 8);

                        sum = (sum ^ data[i]) * 0x100000001b3ull;
                        if (look == LOOK_PATTERN)
                                want = word(salt, disk, s, (unsigned)(i % (SECTOR / 8)));
                        else if (look != LOOK_ZEROS)
                                want = data[i];
                        if (data[i] == want)
                                continue;
                        printf("disk %u: %c: FAILED stale: sector %lu word %lu is %lx, want %lx\n",
                               disk, letter, s, i % (SECTOR / 8), data[i], want);
                        failures++;
                        return;
                }
        }
        if (look == LOOK_SUM)
                printf("disk %u: %c: ok %lx\n", disk, letter, sum);
        else
                result(disk, letter, 0, 0);
}

static void zero_range(unsigned disk, char letter, uint32_t type, uint32_t flags)
{
        static struct virtio_blk_discard_write_zeroes segment;

        segment.sector = first;
        segment.num_sectors = (uint32_t)count;
        segment.flags = flags;
        result(disk, letter, vblk_do(disks + disk, type, 0, &segment, sizeof segment), first);
}

static void info(unsigned disk)
{
        char id[VIRTIO_BLK_ID_BYTES + 1] = "";
        int status = vblk_do(disks + disk, VIRTIO_BLK_T_GET_ID, 0, id, VIRTIO_BLK_ID_BYTES);

        if (status) {
                result(disk, 'i', status, 0);
                return;
        }
        printf("disk %u: i: ok sectors=%lu readonly=%d serial=%s features=%lx slot=%u\n", disk,
               disks[disk].sectors, disks[disk].readonly, id, disks[disk].dev.features,
               disks[disk].dev.slot);
}

static void do_disk(unsigned disk, char letter)
{
        uint64_t mine = seed + 256 * (1 + number);

        switch (letter) {
        case 'i':
                info(disk);
                break;
        case 'w':
                write_range(disk, letter, first, seed);
                break;
        case 'W':
                write_range(disk, letter, own, mine);
                break;
        case 'f':
                result(disk, letter, vblk_do(disks + disk, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
                break;
        case 'v':
                read_range(disk, letter, first, seed, LOOK_PATTERN);
                break;
        case 'V':
                read_range(disk, letter, own, mine, LOOK_PATTERN);
                break;
        case 'z':
                read_range(disk, letter, first, 0, LOOK_ZEROS);
                break;
        case 'O':
                read_range(disk, letter, own, 0, LOOK_ZEROS);
                break;
        case 's':
                read_range(disk, letter, first, 0, LOOK_SUM);
                break;
        case 'r':
                read_range(disk, letter, first, 0, LOOK_NOT);
                break;
        case 'd':
                zero_range(disk, letter, VIRTIO_BLK_T_DISCARD, 0);
                break;
        case '0':
                zero_range(disk, letter, VIRTIO_BLK_T_WRITE_ZEROES, 0);
                break;
        case 'u':
                zero_range(disk, letter, VIRTIO_BLK_T_WRITE_ZEROES,
                           VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
                break;
        default:
                printf("disk: %c: FAILED no such letter\n", letter);
                failures++;
        }
}

static void entropy(void)
{
        static uint8_t bytes[32];
        char text[65] = "";
        int n = vrng_read(0, bytes, sizeof bytes, &rng_mem);

        for (unsigned i = 0; i < sizeof bytes && n > 0; i++) {
                text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
                text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
        }
        printf("disk: entropy: %d %s\n", n, text);
        failures += n <= 0;
}

static void ring(void)
{
        number = doorbell_ring();
        printf("disk: fork: %d of %u\n", (int)number, doorbell_count());
        if (number >= RAMET_DOORBELL_ERROR) {
                number = 0;
                failures++;
        }
}

static void letter(char c)
{
        if (c == 'R')
                ring();
        else if (c == 'e')
                entropy();
        else if (c == 't')
                sleep_ms(100);
        else if (c == 'c')
                while (getc_nowait() != '\n')
                        sleep_ms(1);
        else
                for (unsigned i = 0; i < ndisks; i++)
                        do_disk(i, c);
}

static uint64_t work(void *arg)
{
        const char *begin = arg;

        for (const char *p = begin; *p && *p != ' ' && *p != 'x'; p++) {
                if (*p == 'l')
                        p = begin - 1;
                else
                        letter(*p);
        }
        printf("disk: done: %u failed\n", failures);
        return 0;
}

static const char *letters(void)
{
        for (const char *p = boot.cmdline; *p; p++)
                if ((p == boot.cmdline || p[-1] == ' ') && p[0] == 'd' && p[1] == 'o' &&
                    p[2] == '=')
                        return p + 3;
        return "iwfv";
}

void guest_main(void)
{
        ndisks = (unsigned)cmd_u64("disks", 1);
        first = cmd_u64("start", 0);
        count = cmd_u64("count", 64);
        own = cmd_u64("own", first + count);
        seed = cmd_u64("seed", 1);
        chunk = cmd_u64("chunk", 16);
        if (!chunk || chunk > CHUNK)
                chunk = CHUNK;
        if (ndisks > DISKS)
                ndisks = DISKS;
        for (unsigned i = 0; i < ndisks; i++) {
                int found = vblk_open(disks + i, i, mems + i);

                if (found != 1) {
                        printf("disk %u: FAILED %s\n", i, found ? "refuses" : "is not there");
                        ndisks = i;
                        failures++;
                } else if (cmd_u64("irq", 0)) {
                        virtio_irq(&disks[i].dev);
                }
        }
        printf("disk: ready\n");
        run_user(work, (void *)letters());
        for (unsigned i = 0; i < ndisks && cmd_u64("irq", 0); i++)
                printf("disk %u: %u interrupts\n", i, disks[i].dev.irqs);
}
