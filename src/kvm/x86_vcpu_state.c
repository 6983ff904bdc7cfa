/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole state of one vCPU, to records and back.
 *
 * The order of restoring matters: MP state first, since setting registers of a vCPU that waits for
 * SIPI is lost otherwise; the special registers before the local APIC, whose base and enable bit
 * they carry; the local APIC before the MSRs, since the TSC deadline is dropped when the timer is
 * not yet in that mode; events last, because the special registers hold a pending interrupt, too.
 *
 * Time: where KVM lets us read its TSC offset we carry that over, which is exact on one host: the
 * guest's TSC is the host's plus the offset in every clone. Elsewhere the TSC is set to what it was
 * plus what went by.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm.h"

#define MSR_IA32_TSC            0x10u
#define MSR_MC0_CTL             0x400u /* SDM vol. 3, 16.3.2: 4 MSRs a bank */
#define ENTRIES_MAX             4      /* a triple fault that waits comes out first */
#define MSR_KVM_SYSTEM_TIME     0x12u  /* msr.rst: bit 0 says that it is in use */
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u
#define MC_BANKS                32u  /* KVM has as many */
#define MSRS_MAX                255u /* KVM takes fewer than 256 at a time */

struct msrs {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[KVM_HOST_MSRS_MAX];
};

/* --- simple records: one ioctl, one struct --- */

struct simple {
        uint32_t kind;
        unsigned long get, set;
        size_t size;
        const char *name;
        size_t host_flag; /* offset of a bool in struct kvm_host; 0: always there */
};

#define ALWAYS 0
static const struct simple mp_state = {RECORD_MP_STATE,  KVM_GET_MP_STATE,
                                       KVM_SET_MP_STATE, sizeof(struct kvm_mp_state),
                                       "MP_STATE",       ALWAYS};
static const struct simple regs = {RECORD_REGS, KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs),
                                   "REGS",      ALWAYS};
static const struct simple sregs = {
        RECORD_SREGS, KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs), "SREGS", ALWAYS};
static const struct simple sregs2 = {RECORD_SREGS2,  KVM_GET_SREGS2,
                                     KVM_SET_SREGS2, sizeof(struct kvm_sregs2),
                                     "SREGS2",       offsetof(struct kvm_host, sregs2)};
static const struct simple xcrs = {RECORD_XCRS,  KVM_GET_XCRS,
                                   KVM_SET_XCRS, sizeof(struct kvm_xcrs),
                                   "XCRS",       offsetof(struct kvm_host, xcrs)};
static const struct simple debugregs = {RECORD_DEBUGREGS,  KVM_GET_DEBUGREGS,
                                        KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs),
                                        "DEBUGREGS",       offsetof(struct kvm_host, debugregs)};
static const struct simple lapic = {RECORD_LAPIC,  KVM_GET_LAPIC,
                                    KVM_SET_LAPIC, sizeof(struct kvm_lapic_state),
                                    "LAPIC",       ALWAYS};
static const struct simple events = {RECORD_EVENTS,       KVM_GET_VCPU_EVENTS,
                                     KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events),
                                     "VCPU_EVENTS",       ALWAYS};

/* Room for the largest of them, the local APIC's registers. */
union any {
        struct kvm_lapic_state lapic;
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_sregs2 sregs2;
        struct kvm_xcrs xcrs;
        struct kvm_debugregs debugregs;
        struct kvm_vcpu_events events;
        struct kvm_mp_state mp_state;
};

static bool present(const struct kvm_host *host, const struct simple *s)
{
        return s->host_flag == ALWAYS || *((const bool *)host + s->host_flag);
}

static int save_one(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                    const struct simple *s, struct record_writer *w, struct err *err)
{
        union any value;
        int r;

        if (!present(host, s))
                return 0;
        memset(&value, 0, sizeof value);
        r = kvm_ioctl(vcpu->fd, s->get, &value);
        if (r < 0)
                return err_host(err, -r, "KVM_GET_%s: vCPU %u: %s", s->name, vcpu->id,
                                strerror(-r));
        record_add(w, s->kind, vcpu->id, 1, &value, s->size);
        return 0;
}

static int restore_one(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                       const struct simple *s, const struct record_reader *reader, struct err *err)
{
        union any value;
        int r;

        if (!present(host, s))
                return 0;
        r = record_get(reader, s->kind, vcpu->id, &value, s->size, err);
        if (r < 0)
                return r;
        r = kvm_ioctl(vcpu->fd, s->set, &value);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_%s: vCPU %u: %s", s->name, vcpu->id,
                                strerror(-r));
        return 0;
}

/* --- the extended state: its size is the host's to say --- */

static int save_xsave(const struct kvm_host *host, const struct kvm_vm *vm,
                      const struct kvm_vcpu *vcpu, struct record_writer *w, struct err *err)
{
        void *area = record_space(w, RECORD_XSAVE, vcpu->id, 1, vm->xsave_bytes);
        int r;

        if (!area)
                return err_host(err, ENOMEM, "no memory for the state of vCPU %u", vcpu->id);
        r = kvm_ioctl(vcpu->fd, host->xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area);
        if (r < 0)
                return err_host(err, -r, "KVM_GET_XSAVE: vCPU %u: %s", vcpu->id, strerror(-r));
        return 0;
}

static int restore_xsave(const struct kvm_vm *vm, const struct kvm_vcpu *vcpu,
                         const struct record_reader *reader, struct err *err)
{
        const struct record *rec = record_find(reader, RECORD_XSAVE, vcpu->id);
        int r;

        /* KVM reads xsave_bytes whatever the record has, so less than that is not enough. */
        if (!rec || rec->length < vm->xsave_bytes)
                return err_input(err,
                                 "saved state: extended state of vCPU %u: %u bytes, expected %zu",
                                 vcpu->id, rec ? rec->length : 0, vm->xsave_bytes);
        r = kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, (void *)(uintptr_t)rec->data);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_XSAVE: vCPU %u: %s", vcpu->id, strerror(-r));
        return 0;
}

/* --- MSRs --- */

/* KVM_GET_MSRS and KVM_SET_MSRS stop at the first MSR that fails and return how many went well. */
static int msrs_ioctl(const struct kvm_vcpu *vcpu, unsigned long request,
                      const struct kvm_msr_entry *entry, unsigned n, struct msrs *buf)
{
        memset(&buf->head, 0, sizeof buf->head);
        buf->head.nmsrs = n;
        memcpy(buf->entry, entry, n * sizeof *entry);
        return kvm_ioctl(vcpu->fd, request, buf);
}

/* The memory types: KVM keeps them and lists them not. MTRRdefType, 8 variable ranges, and the
 * fixed ones (SDM vol. 3, 12.11.2). */
static unsigned list_mtrrs(uint32_t *index)
{
        static const uint32_t others[] = {0x2ff, 0x250, 0x258, 0x259};
        unsigned n = 0;

        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
                index[n++] = others[i];
        for (uint32_t msr = 0x200; msr <= 0x20f; msr++)
                index[n++] = msr;
        for (uint32_t msr = 0x268; msr <= 0x26f; msr++)
                index[n++] = msr;
        return n;
}
#define MTRRS 28

int kvm_msr_set_probe(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                      struct kvm_msr_set *list, struct err *err)
{
        struct {
                struct {
                        uint32_t nmsrs;
                } head;
                uint32_t index[KVM_HOST_MSRS_MAX];
        } all = {.head = {KVM_HOST_MSRS_MAX - MTRRS}};
        struct kvm_msr_entry entry[KVM_HOST_MSRS_MAX] = {0};
        struct msrs *buf;
        unsigned at = 0;
        int r = kvm_ioctl(host->fd, KVM_GET_MSR_INDEX_LIST, &all);

        if (r < 0)
                return err_host(err, -r, "KVM_GET_MSR_INDEX_LIST: %s", strerror(-r));
        buf = malloc(sizeof *buf);
        if (!buf)
                return err_host(err, ENOMEM, "no memory for the list of MSRs");
        all.head.nmsrs += list_mtrrs(all.index + all.head.nmsrs);
        for (unsigned i = 0; i < all.head.nmsrs; i++)
                entry[i].index = all.index[i];
        list->count = 0;
        while (at < all.head.nmsrs) {
                r = msrs_ioctl(vcpu, KVM_GET_MSRS, entry + at, all.head.nmsrs - at, buf);
                if (r < 0)
                        break;
                for (int i = 0; i < r; i++)
                        list->index[list->count++] = entry[at + (unsigned)i].index;
                at += (unsigned)r + 1; /* past the one that this vCPU does not have */
        }
        free(buf);
        if (r < 0)
                return err_host(err, -r, "KVM_GET_MSRS: %s", strerror(-r));
        return 0;
}

static int save_msrs(const struct kvm_vcpu *vcpu, const struct kvm_msr_set *list,
                     struct record_writer *w, struct err *err)
{
        struct msrs buf;
        int r;

        buf.head = (struct kvm_msrs){.nmsrs = list->count};
        for (unsigned i = 0; i < list->count; i++)
                buf.entry[i] = (struct kvm_msr_entry){.index = list->index[i]};
        r = kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &buf);
        if (r < 0)
                return err_host(err, -r, "KVM_GET_MSRS: vCPU %u: %s", vcpu->id, strerror(-r));
        if ((unsigned)r != list->count)
                return err_host(err, EIO, "KVM_GET_MSRS: vCPU %u: MSR %#x cannot be read", vcpu->id,
                                list->index[r]);
        record_add(w, RECORD_MSRS, vcpu->id, 1, buf.entry, list->count * sizeof buf.entry[0]);
        return 0;
}

/* The banks of machine checks are in no record: INIT keeps them, and a clone has them empty. KVM
 * has as many as it likes, and no others beyond. */
static unsigned add_machine_checks(struct kvm_msr_entry *entry)
{
        for (uint32_t i = 0; i < 4 * MC_BANKS; i++)
                entry[i] = (struct kvm_msr_entry){.index = MSR_MC0_CTL + i};
        return 4 * MC_BANKS;
}

/* MSRs that KVM lists and reads but refuses to be given back (read-only ones, and values that only
 * the hardware makes) are passed over: a vCPU of the same host and CPUID has them already. @again:
 * it has run, and loses what is in no record, in the same call. */
static int restore_msrs(const struct kvm_vcpu *vcpu, const struct record_reader *reader,
                        const struct vcpu_tsc *tsc, uint64_t elapsed_ns, bool again,
                        struct err *err)
{
        const struct record *rec = record_find(reader, RECORD_MSRS, vcpu->id);
        struct kvm_msr_entry *entry;
        struct msrs *buf;
        unsigned n = 0, at = 0, last;
        int r = 0;

        if (!rec || rec->length / sizeof *entry > KVM_HOST_MSRS_MAX)
                return err_input(err, "saved state: no usable MSRs of vCPU %u", vcpu->id);
        buf = malloc(sizeof *buf + rec->length + 4 * MC_BANKS * sizeof *entry);
        if (!buf)
                return err_host(err, ENOMEM, "no memory for the MSRs of vCPU %u", vcpu->id);
        entry = (struct kvm_msr_entry *)(buf + 1);
        for (unsigned i = 0; i < rec->length / sizeof *entry; i++) {
                struct kvm_msr_entry e = ((const struct kvm_msr_entry *)rec->data)[i];

                if (e.index == MSR_IA32_TSC) {
                        if (tsc->has_offset)
                                continue;
                        e.data += (uint64_t)((unsigned __int128)elapsed_ns * tsc->khz / 1000000u);
                }
                entry[n++] = e;
        }
        last = n;
        if (again)
                n += add_machine_checks(entry + n);
        while (at < n) {
                unsigned count = n - at < MSRS_MAX ? n - at : MSRS_MAX;

                r = msrs_ioctl(vcpu, KVM_SET_MSRS, entry + at, count, buf);
                if (r < 0)
                        break;
                at += (unsigned)r;
                if ((unsigned)r == count)
                        continue;
                if (at >= last)
                        break; /* all banks that there are */
                at++;
        }
        free(buf);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_MSRS: vCPU %u: %s", vcpu->id, strerror(-r));
        return 0;
}

/* --- TSC --- */

static struct kvm_device_attr tsc_attr(uint64_t *offset)
{
        return (struct kvm_device_attr){
                .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

static void save_tsc(const struct kvm_vcpu *vcpu, struct record_writer *w)
{
        struct vcpu_tsc tsc = {0};
        uint64_t offset = 0;
        struct kvm_device_attr attr = tsc_attr(&offset);

        tsc.khz = vcpu->tsc_khz;
        if (kvm_ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) == 0) {
                tsc.has_offset = 1;
                tsc.offset = offset;
        }
        record_add(w, RECORD_TSC, vcpu->id, 1, &tsc, sizeof tsc);
}

static void restore_tsc(const struct kvm_vcpu *vcpu, struct vcpu_tsc *tsc)
{
        struct kvm_device_attr attr = tsc_attr(&tsc->offset);

        /* Where the offset cannot be set after all, the MSR is the fallback. */
        if (tsc->has_offset && kvm_ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
                tsc->has_offset = 0;
}

/* Whether the records say that the guest uses no KVM clock, neither the old nor the new one. */
static bool has_no_clock(const struct kvm_vcpu *vcpu, const struct record_reader *reader)
{
        const struct record *rec = record_find(reader, RECORD_MSRS, vcpu->id);
        bool known = false;

        for (unsigned i = 0; rec && i < rec->length / sizeof(struct kvm_msr_entry); i++) {
                const struct kvm_msr_entry *e = (const struct kvm_msr_entry *)rec->data + i;

                if (e->index != MSR_KVM_SYSTEM_TIME && e->index != MSR_KVM_SYSTEM_TIME_NEW)
                        continue;
                if (e->data & 1)
                        return false;
                known = true;
        }
        return known;
}

/* The guest's watchdog is told by its KVM clock, if it uses one, that time went by without it
 * (api.rst 4.79). Without one the call fails, and there is nobody to tell. */
void kvm_vcpu_was_paused(const struct kvm_vcpu *vcpu)
{
        kvm_ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, NULL);
}

/* --- what is in no record --- */

/* Enter with a signal pending: KVM looks at its requests, then at the signal, and comes back
 * without having run the guest. (immediate_exit comes back before it looks.) */
static int take_requests(const struct kvm_vcpu *vcpu, int signal, struct err *err)
{
        const struct timespec now = {0};
        sigset_t one, old;
        int r = 0;

        sigemptyset(&one);
        sigaddset(&one, signal);
        pthread_sigmask(SIG_BLOCK, &one, &old);
        pthread_kill(pthread_self(), signal);
        vcpu->run->immediate_exit = 0;
        for (unsigned i = 0; i < ENTRIES_MAX && r == 0; i++)
                r = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
        while (sigtimedwait(&one, NULL, &now) < 0 && errno == EINTR)
                ;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r == -EINTR || r == -EAGAIN)
                return 0;
        return err_host(err, r < 0 ? -r : EIO, "KVM_RUN: vCPU %u takes no signal: %s", vcpu->id,
                        strerror(r < 0 ? -r : EIO));
}

static int get_events(const struct kvm_vcpu *vcpu, struct kvm_vcpu_events *now, struct err *err)
{
        int r = kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, now);

        return r < 0 ? err_host(err, -r, "KVM_GET_VCPU_EVENTS: vCPU %u: %s", vcpu->id, strerror(-r))
                     : 0;
}

/* INIT and SIPI that wait are taken when the MP state is read, NMI and SMI when the events are. */
static int take_events(const struct kvm_vcpu *vcpu, struct err *err)
{
        struct kvm_vcpu_events now;
        struct kvm_mp_state mp;
        int r = kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp);

        if (r < 0)
                return err_host(err, -r, "KVM_GET_MP_STATE: vCPU %u: %s", vcpu->id, strerror(-r));
        return get_events(vcpu, &now, err);
}

/* Which kinds of events this KVM knows: the same each time, so it is asked once. */
static int know_events(struct kvm_vcpu *vcpu, struct err *err)
{
        struct kvm_vcpu_events now;
        int r = vcpu->knows_events ? 0 : get_events(vcpu, &now, err);

        if (r == 0 && !vcpu->knows_events) {
                vcpu->event_flags = now.flags;
                vcpu->knows_events = true;
        }
        return r;
}

/* All requests are taken. Then: no events, of every kind that this KVM knows, out of SMM, and an
 * INIT, which is latched by setting it and comes when the MP state is read. It empties what no call
 * shows. An INIT, SIPI, NMI or SMI that still waits, of a vCPU that KVM did not enter, is taken
 * then, too, and the restore goes over it.
 *
 * One thing among that holds a vCPU for ever if it is not: the note that it waits for a page fault
 * that KVM lets be served in the background (of a page that is swapped out, or that userfaultfd
 * protects). Setting the MSR of async page faults, as every restore does, drops the faults that are
 * under way, but neither the note nor the request to make one (both seen). */
int kvm_vcpu_forget(struct kvm_vcpu *vcpu, int signal, struct err *err)
{
        struct kvm_vcpu_events none = {.smi.latched_init = 1};
        int r = know_events(vcpu, err);

        if (r == 0)
                r = take_requests(vcpu, signal, err);
        if (r < 0)
                return r;
        none.flags = vcpu->event_flags | KVM_VCPUEVENT_VALID_SMM;
        r = kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &none);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_VCPU_EVENTS: vCPU %u: %s", vcpu->id,
                                strerror(-r));
        return take_events(vcpu, err);
}

/* --- all of it --- */

int kvm_vcpu_save(const struct kvm_host *host, const struct kvm_vm *vm, const struct kvm_vcpu *vcpu,
                  const struct kvm_msr_set *msrs, struct record_writer *w, struct err *err)
{
        /* MP state first: KVM_GET_MP_STATE makes pending APIC events (INIT, SIPI) take effect. */
        const struct simple *const order[] = {&mp_state, &regs,  host->sregs2 ? &sregs2 : &sregs,
                                              &xcrs,     &lapic, &debugregs,
                                              &events};
        int r;

        for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
                r = save_one(host, vcpu, order[i], w, err);
                if (r < 0)
                        return r;
        }
        r = save_xsave(host, vm, vcpu, w, err);
        if (r < 0)
                return r;
        save_tsc(vcpu, w);
        return save_msrs(vcpu, msrs, w, err);
}

int kvm_vcpu_restore(const struct kvm_host *host, const struct kvm_vm *vm,
                     const struct kvm_vcpu *vcpu, const struct record_reader *reader,
                     uint64_t elapsed_ns, bool again, struct err *err)
{
        const struct simple *const before[] = {&mp_state, &regs, host->sregs2 ? &sregs2 : &sregs,
                                               &xcrs};
        const struct simple *const after[] = {&debugregs, &lapic};
        struct vcpu_tsc tsc;
        int r;

        for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
                r = restore_one(host, vcpu, before[i], reader, err);
                if (r < 0)
                        return r;
        }
        r = restore_xsave(vm, vcpu, reader, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < sizeof after / sizeof after[0]; i++) {
                r = restore_one(host, vcpu, after[i], reader, err);
                if (r < 0)
                        return r;
        }
        r = record_get(reader, RECORD_TSC, vcpu->id, &tsc, sizeof tsc, err);
        if (r < 0)
                return r;
        restore_tsc(vcpu, &tsc);
        r = restore_msrs(vcpu, reader, &tsc, elapsed_ns, again, err);
        if (r < 0)
                return r;
        if (!has_no_clock(vcpu, reader))
                kvm_vcpu_was_paused(vcpu);
        return restore_one(host, vcpu, &events, reader, err);
}
