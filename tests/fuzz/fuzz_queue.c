/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue (devices/virtio/queue.c) over guest memory of which every byte is the input's, and which
 * changes under its feet: the input says what is written before which of the queue's looks at
 * memory. queue.c is compiled into this program with those looks diverted to here.
 *
 * Memory is two regions with a hole between them. Some pages lie elsewhere, as with the engine rom,
 * so that a buffer may be in several pieces. Everything between and behind is poisoned.
 */
#include "input.h"

#include <sanitizer/asan_interface.h>

#include "mem/access.h"

static struct guest_access access_;
static unsigned looks; /* at memory, since this was last set to 0 */

static uint8_t *diverted_span(struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                              uint64_t *piece);
static int diverted_read(struct guest_access *a, uint64_t gpa, void *buf, size_t len);

#define guest_access_span diverted_span
#define guest_access_read diverted_read
#include "devices/virtio/queue.c"
#undef guest_access_span
#undef guest_access_read

#define PAGE    4096u
#define PAGES   4u                     /* of a region */
#define BLOCK   ((PAGES + 1) * PAGE)   /* with a gap behind it */
#define HIGH    0x10000u               /* where the second region begins */
#define OTHER   ((ptrdiff_t)2 * BLOCK) /* from where a page would be to where it is */
#define MOVED   0xa4u                  /* which pages, of both regions */
#define CHANGES 8u

static _Alignas(PAGE) uint8_t ram[4 * BLOCK];
static const uint64_t moved[] = {MOVED};
static const struct guest_mem mem = {
        .nregions = 2,
        .regions =
                {{.gpa = 0, .size = PAGES * PAGE, .hva = ram},
                 {.gpa = HIGH, .size = PAGES * PAGE, .offset = PAGES * PAGE, .hva = ram + BLOCK}},
        .moved = moved,
        .moved_by = OTHER,
};

static struct tlb tlb;

/* What is written once the queue has looked so many times. */
static struct change {
        unsigned after;
        uint16_t gpa, value;
} changes[CHANGES];
static unsigned nchanges;

static uint8_t *page_at(unsigned page)
{
        return ram + (page < PAGES ? 0 : BLOCK) + page % PAGES * PAGE +
               (MOVED >> page & 1 ? OTHER : 0);
}

static void memory_init(void)
{
        static bool done;

        if (!done) {
                __asan_poison_memory_region(ram, sizeof ram);
                for (unsigned i = 0; i < 2 * PAGES; i++)
                        __asan_unpoison_memory_region(page_at(i), PAGE);
                tlb_init(&tlb);
                guest_access_init(&access_, &mem, NULL, &tlb);
                done = true;
        }
        for (unsigned i = 0; i < 2 * PAGES; i++)
                memset(page_at(i), 0, PAGE);
}

static void put(uint64_t gpa, const void *data, size_t len)
{
        (void)guest_mem_write(&mem, gpa, data, len);
}

static void put16(uint64_t gpa, uint16_t value)
{
        put(gpa, &value, sizeof value);
}

static void look(void)
{
        looks++;
        for (unsigned i = 0; i < nchanges; i++) {
                if (changes[i].after == looks)
                        put16(changes[i].gpa, changes[i].value);
        }
}

static uint8_t *diverted_span(struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                              uint64_t *piece)
{
        look();
        return guest_access_span(a, gpa, len, write, piece);
}

static int diverted_read(struct guest_access *a, uint64_t gpa, void *buf, size_t len)
{
        look();
        return guest_access_read(a, gpa, buf, len);
}

/* ---- one queue ---- */

static struct virtq q;
static struct virtq_chain chain;       /* the last one, while `have` */
static bool have, fresh;               /* nothing has been popped or pushed since */
static uint16_t avail;                 /* the driver's index */
static uint16_t heads[VIRTQ_SIZE_MAX]; /* popped and not pushed, oldest first */
static unsigned nheads;

/* In RAM, mostly. */
static uint64_t take_gpa(struct input *in)
{
        uint8_t kind = take8(in);

        if (kind >= 0xf8)
                return take64(in);
        return (kind & 1 ? HIGH : 0) + take16(in) % (PAGES * PAGE + (kind & 0x80 ? PAGE : 0));
}

static void set_up(struct input *in)
{
        struct virtq_layout at = {0x0, 0x1000, 0x2000, 8};
        struct err err = {0};
        uint8_t kind = take8(in);

        at.size = (uint16_t)(1u << (kind & 15));
        if (kind & 0x10)
                at.size = take16(in);
        if (kind & 0x20)
                at.desc = take_gpa(in);
        if (kind & 0x40)
                at.driver = take_gpa(in);
        if (kind & 0x80)
                at.device = take_gpa(in);
        kind = take8(in);
        have = fresh = false;
        nheads = 0;
        avail = 0;
        if (virtq_init(&q, &access_, &at, kind & 1, kind & 2, &err) == 0) {
                assert_true(q.ready && at.size <= VIRTQ_SIZE_MAX);
                /* as after a restore */
                avail = q.next_avail = q.next_used = kind & 4 ? take16(in) : 0;
        } else {
                assert_true(err.text[0] && !q.ready);
        }
}

static void check_chain(void)
{
        uint64_t out = 0, in = 0;

        assert_true(chain.nout + chain.nin >= 1 && chain.nout + chain.nin <= q.at.size);
        assert_true(chain.head < q.at.size);
        for (unsigned i = 0; i < chain.nout + chain.nin; i++) {
                assert_true(chain.seg[i].len >= 1);
                assert_true(chain.seg[i].writable == (i >= chain.nout));
                *(i < chain.nout ? &out : &in) += chain.seg[i].len;
        }
        assert_true(out == chain.out_len && in == chain.in_len && out + in <= UINT32_MAX);
}

static void pop_one(void)
{
        struct err err = {0};
        bool ready = q.ready;
        int r;

        looks = 0;
        r = virtq_pop(&q, &access_, &chain, &err);
        /* the indices, the entry, a descriptor for each segment, a table */
        assert_true(looks <= q.at.size + 4u);
        have = fresh = r == 1;
        if (r == 1) {
                assert_true(ready && q.ready && q.outstanding <= q.at.size);
                check_chain();
                assert_true(nheads < VIRTQ_SIZE_MAX);
                heads[nheads++] = chain.head;
        } else {
                assert_true(r == 0 || (r == -EPROTO && !q.ready && err.text[0]));
        }
}

static void push_one(struct input *in)
{
        struct err err = {0};
        uint32_t written = take_len(in);
        int r;

        if (!nheads)
                return;
        r = virtq_push(&q, &access_, heads[0], written, &err);
        assert_true(r == (q.ready ? 0 : -EPROTO));
        memmove(heads, heads + 1, --nheads * sizeof heads[0]);
        fresh = false;
}

static bool is_ram(const uint8_t *p, size_t len)
{
        for (unsigned i = 0; i < 2 * PAGES; i++) {
                if (p >= page_at(i) && p < page_at(i) + PAGE)
                        return __asan_region_is_poisoned((void *)(uintptr_t)p, len) == NULL;
        }
        return false;
}

static void iov_of_part(struct input *in)
{
        struct iovec iov[40];
        uint8_t kind = take8(in);
        bool writable = kind & 1;
        uint64_t have_len = writable ? chain.in_len : chain.out_len, total = 0;
        uint64_t from = take_len(in), len = kind & 2 ? have_len : take_len(in);
        int n = virtq_iov(&access_, &chain, writable, from, len, iov, kind >> 2 & 31);

        if (from > have_len || len > have_len - from)
                assert_true(n == -EINVAL);
        if (n < 0) {
                assert_true(n == -EINVAL || n == -EFAULT || n == -E2BIG);
                return;
        }
        assert_true(n <= (kind >> 2 & 31));
        for (int i = 0; i < n; i++) {
                assert_true(is_ram(iov[i].iov_base, iov[i].iov_len));
                total += iov[i].iov_len;
        }
        assert_true(total == len);
        if (writable)
                virtq_wrote(&access_, &chain, from, len);
}

static void copy_part(struct input *in)
{
        static uint8_t buf[2 * PAGES * PAGE];
        uint8_t kind = take8(in);
        uint64_t from = take_len(in), len = take_len(in) % sizeof buf;
        int r = kind & 1 ? virtq_write(&access_, &chain, from, buf, len)
                         : virtq_read(&access_, &chain, from, buf, len);

        assert_true(r == 0 || r == -EFAULT || r == -EINVAL);
}

/* ---- the driver ---- */

static void describe(struct input *in, uint64_t table, unsigned index)
{
        struct vring_desc d = {.addr = take_gpa(in), .len = take_len(in)};
        uint8_t kind = take8(in);

        d.flags = kind & 7;
        d.next = (uint16_t)(kind & 8 ? take16(in) : index + 1);
        put(table + sizeof d * index, &d, sizeof d);
}

/* A table, and a descriptor of it, which may say that it is longer. */
static void describe_indirect(struct input *in)
{
        struct vring_desc d = {.addr = take_gpa(in) & ~15ull, .flags = VRING_DESC_F_INDIRECT};
        uint8_t kind = take8(in), index = take8(in);
        unsigned n = kind & 15;

        for (unsigned i = 0; i < n; i++)
                describe(in, d.addr, i);
        d.len = kind & 0x10 ? take_len(in) : 16 * n;
        put(q.at.desc + sizeof d * (index % 16), &d, sizeof d);
}

static void drive(struct input *in, unsigned op)
{
        uint64_t table;

        switch (op) {
        case 0:
                describe(in, q.at.desc, take8(in));
                break;
        case 1:
                describe_indirect(in);
                break;
        case 2: /* the next entry of the ring */
                if (!q.at.size)
                        break;
                put16(q.at.driver + 4 + 2ull * (avail % q.at.size), take8(in));
                put16(q.at.driver + 2, ++avail);
                break;
        case 3:
                table = take_gpa(in);
                put16(table, take16(in));
                break;
        default:
                if (nchanges < CHANGES)
                        changes[nchanges++] = (struct change){take8(in), take16(in), take16(in)};
                break;
        }
}

static void use(struct input *in, unsigned op)
{
        switch (op) {
        case 0:
        case 1:
                pop_one();
                break;
        case 2:
                push_one(in);
                break;
        case 3:
                if (fresh && q.ready) {
                        virtq_unpop(&q);
                        nheads--;
                        have = fresh = false;
                }
                break;
        case 4:
                if (have)
                        iov_of_part(in);
                break;
        case 5:
                if (have)
                        copy_part(in);
                break;
        case 6:
                virtq_ask_notify(&q, &access_, take8(in) & 1);
                break;
        default:
                virtq_interrupt_wanted(&q, &access_);
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        struct input in = {data, len};

        memory_init();
        nchanges = looks = 0;
        guest_access_begin(&access_);
        set_up(&in);
        while (in.left > 0) {
                uint8_t op = take8(&in);

                if (op == 0xff)
                        set_up(&in);
                else if (op & 0x80)
                        use(&in, op & 7);
                else
                        drive(&in, op % 5);
        }
        guest_access_end(&access_);
        return 0;
}
