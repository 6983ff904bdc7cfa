/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of src/sync and every transition on them, once: the checked configurations (sync.pml)
 * and the replay of recorded traces (replay.pml) are both made of what stands here. Functions have
 * the names that they have in sync.c, a transition that of the event that sync.c records for it
 * (src/sync/trace.h), and (A) to (E) are the pairs of atomics in the comment that opens sync.c.
 *
 * One access to a shared word is one step, and steps of different threads interleave in every way.
 * A step begins with what sync.c would record: which thread or participant does it (who), to which
 * participant (p), and the value read or written.
 *
 *   DO(op, who, p, val)            possible at any time
 *   IF(op, who, p, val, cond)      possible when cond holds
 *   SAFE(op, who, p, val, cond)    possible at any time, and an error unless cond holds
 *
 * Memory is x86's (TSO). A store goes into the store buffer of its thread; the process store_buffers
 * moves it to memory at some later time. A fence moves it in the same step: store and fence are one
 * instruction there (xchg), as is a read-modify-write.
 *
 * What is unbounded in sync.c is bounded here: generations by the number of rounds; of the counters
 * `left` and `lent`, there is only whether they have changed since a thread looked at them.
 */
#define NACTORS (NINIT + NPART)         /* threads that may initiate */

#define OUTSIDE  0                      /* enum sync_mode */
#define IN_GUEST 1
#define EXITING  2

#define NOT_LOOKED 0                    /* a counter, as seen by a thread */
#define UNCHANGED  1
#define CHANGED    2

/* --- struct sync_domain, struct sync_participant --- */

GEN generation = 1;
byte stopped;                           /* 2: and somebody sleeps on it */
byte next_turn, turn;
bit list_lock;
byte left_seen[NACTORS];                /* what a thread knows of the word `left` */

GEN entered[NPART];
bit awaited[NPART];                     /* SYNC_AWAITED in `entered` */
byte mode[NPART];
bit requests[NPART];
bit joined[NPART];
bit listed[NPART];
#ifdef LEND
byte lent_seen[NACTORS];                /* what a thread knows of the word `lent` */
bit busy[NPART];                        /* an I/O that is in flight */
#endif
#ifdef FIFO
byte fifo_pages[NPART];                 /* a bit for each page that a range names */
byte nranges[NPART];
bit covered[NPART];                     /* and SYNC_CURRENT is among the kinds */
#endif

/* Who sleeps on a futex. FUTEX_WAIT compares and falls asleep in one step; it never ends by itself,
 * and so a wake-up that is lost is a deadlock here. */
bit left_sleeper[NACTORS];
bit turn_sleeper[NACTORS];
bit stopped_sleeper[NPART];

/* --- a vCPU --- */

bit signalled[NPART];                   /* the kick is pending */
bit in_run[NPART];                      /* in the guest */
bit kicked[NPART];                      /* it has seen that there was a kick, and takes it next */

/* --- what it is all for. Version v of a page's translation is handed out from when it becomes
 *     `current` until the next one does; versions up to `freed` must not be used any more. --- */

GEN current[NPAGES];
GEN freed[NPAGES];
GEN cached[NPART * NPAGES];             /* the version that a participant has, or 0 */
bit inside[NPART];                      /* it may use that at any moment */
bit exclusive;                          /* from the end of stop to the beginning of resume */

#define cache(k, page)    cached[(k) * NPAGES + (page)]
#define good(k, page)     (cache(k, page) == 0 || cache(k, page) > freed[page])
#if NPAGES == 1
#define all_good(k)       good(k, 0)
#else
#define all_good(k)       (good(k, 0) && good(k, 1))
#endif
#define has_old(k, page, v) (inside[k] && cache(k, page) != 0 && cache(k, page) <= (v))
#if NPART == 1
#define somebody_has(page, v)   has_old(0, page, v)
#define nobody_inside           (!inside[0])
#elif NPART == 2
#define somebody_has(page, v)   (has_old(0, page, v) || has_old(1, page, v))
#define nobody_inside           (!inside[0] && !inside[1])
#else
#define somebody_has(page, v)   (has_old(0, page, v) || has_old(1, page, v) || \
                                 has_old(2, page, v))
#define nobody_inside           (!inside[0] && !inside[1] && !inside[2])
#endif

hidden byte z;                          /* for loops within a d_step */

inline forget_all(i)
{
        for (z : 0 .. NPAGES - 1) {
                cache(i, z) = 0
        }
}

#define count_up(seen)                                                  \
        for (z : 0 .. NACTORS - 1) {                                    \
                if                                                      \
                :: seen[z] == UNCHANGED -> seen[z] = CHANGED            \
                :: else                                                 \
                fi                                                      \
        };                                                              \
        z = 0

#define wake(sleepers, number)                                          \
        for (z : 0 .. number - 1) {                                     \
                sleepers[z] = 0                                         \
        };                                                              \
        z = 0

/* --- memory --- */

#define ENTERED 1
#define MODE    2
#define LENT    3                       /* `entered` of the I/O */

byte sb_word[NPART];                    /* which word waits in a participant's store buffer */
GEN sb_value[NPART];

inline drain(i)
{
        if
        :: sb_word[i] == ENTERED -> entered[i] = sb_value[i]
        :: sb_word[i] == MODE -> mode[i] = sb_value[i]
        :: sb_word[i] == LENT -> entered[NPART - 1] = sb_value[i]
        :: else
        fi;
        sb_word[i] = 0;
        sb_value[i] = 0
}

inline store(i, word, value)
{
        drain(i);
        sb_word[i] = word;
        sb_value[i] = value
}

/* Every fence that the proof needs can be dropped. */
#ifdef NO_ENTER_FENCE
#define enter_fence(i)  skip
#else
#define enter_fence(i)  drain(i)
#endif
#ifdef NO_BEGIN_FENCE
#define begin_fence(i)  skip
#else
#define begin_fence(i)  drain(i)
#endif
#ifdef NO_LEND_FENCE
#define lend_fence(i)   skip
#else
#define lend_fence(i)   drain(i)
#endif

/* --- leaving --- */

#define word_of(k)      (2 * entered[k] + awaited[k])

inline bump_left(i)
{
        d_step { DO(LEFT_BUMP, 0, 0, 0); count_up(left_seen) }
}

inline wake_left()
{
        d_step { wake(left_sleeper, NACTORS) }
}

/* It uses nothing now: it goes out, or has not begun. */
inline end_use(i)
{
        inside[i] = 0;
#ifndef FIFO
        forget_all(i);
#endif
        skip
}

/* (C): an exchange. */
inline set_entered(i, value)
{
#ifdef EXIT_IN_TWO
        d_step { drain(i); told = awaited[i] };
        d_step { end_use(i); entered[i] = value; awaited[i] = 0; gen = value };
#else
        d_step {
                DO(SET_ENTERED, i, i, 2 * (value) + awaited[i]);
                drain(i);
                end_use(i);
                told = awaited[i];
                entered[i] = value;
                awaited[i] = 0;
                gen = value
        };
#endif
        if
        :: told ->
#ifdef NO_LEFT_WAKE
           bump_left(i);
#elif defined(WAKE_BEFORE_BUMP)
           wake_left();
           bump_left(i);
#else
           bump_left(i);
           wake_left()
#endif
           told = 0
        :: else
        fi
}

inline sync_exit(i)
{
        set_entered(i, 0)
}

/* --- the list of participants, newest first --- */

/* A walk takes list_lock with its first step (n is NPART then) and drops it with its last: between
 * either and the step next to it no other thread could tell a difference. */
#define can_walk        (n < NPART || !list_lock)
#define on_listed       (n > 0 && listed[n - 1])
#define on_unlisted     (n > 0 && !listed[n - 1])

inline sync_join(i)
{
        d_step { IF(JOIN, i, i, 0, !list_lock); joined[i] = 1; listed[i] = 1 }
}

/* By its own thread, or, when that died, by whoever joined it. */
inline sync_leave(i)
{
        d_step { DO(LEAVE, i, i, joined[i]); drain(i); end_use(i); joined[i] = 0 };
        d_step { IF(UNLIST, i, i, 0, !list_lock); listed[i] = 0; mode[i] = OUTSIDE };
#ifdef LEAVE_SILENTLY
        entered[i] = 0
#else
        sync_exit(i)
#endif
}

/* --- read sections --- */

/* (A). Leaves refused set when the domain is stopped. */
inline sync_try_enter(i)
{
        d_step { DO(ENTER_GEN, i, i, generation); gen = generation };
        d_step {
                DO(ENTER_STORE, i, i, gen);
                store(i, ENTERED, gen);
                enter_fence(i)
        };
        if
#ifdef NO_STOPPED_CHECK
        :: true;
#else
        :: IF(ENTER_CHECK_STOPPED, i, i, stopped, stopped != 0);
           set_entered(i, 0);
           refused = 1
        :: IF(ENTER_CHECK_STOPPED, i, i, stopped, stopped == 0);
#endif
           if
           :: IF(ENTER_CHECK_GEN, i, i, generation, generation == gen)
           :: d_step {
                IF(ENTER_CHECK_GEN, i, i, generation, generation != gen);
                gen = generation
              };
              set_entered(i, gen)
           fi
        fi
}

inline sleep_while_stopped(i)
{
#ifdef NO_SLEEPER_MARK
        skip;
#else
        if
        :: d_step { IF(MARK_STOPPED, i, i, 1, stopped == 1); drain(i); stopped = 2 }
        :: IF(MARK_STOPPED, i, i, 0, stopped != 1)
        fi;
#endif
#ifndef REPLAY
        if
#ifdef NO_SLEEPER_MARK
        :: stopped != 1
        :: d_step { stopped == 1 -> stopped_sleeper[i] = 1 };
#else
        :: stopped != 2
        :: d_step { stopped == 2 -> stopped_sleeper[i] = 1 };
#endif
           !stopped_sleeper[i]
        fi
#endif
}

inline sync_enter(i)
{
        do
        :: IF(ENTER_STOPPED, i, i, stopped, stopped != 0);
           sleep_while_stopped(i)
        :: IF(ENTER_STOPPED, i, i, stopped, stopped == 0);
           sync_try_enter(i);
           if
           :: refused -> refused = 0;
              sleep_while_stopped(i)
           :: else -> break
           fi
        od
}

/* What the participant does with what it has been told, before it uses anything cached. */
#ifdef FIFO
#define posted(i)       (covered[i] || nranges[i])
#define waits_for(i)    (nranges[i] + 100 * covered[i])

inline sync_take(i)
{
        if
        :: IF(TAKE_POSTED, i, i, 0, !posted(i))
        :: IF(TAKE_POSTED, i, i, 1, posted(i));
           d_step {
                SAFE(TAKE, i, i, waits_for(i), !covered[i] || nranges[i] == 0);
                for (z : 0 .. NPAGES - 1) {
                        if
                        :: covered[i] || (fifo_pages[i] & (1 << z)) -> cache(i, z) = 0
                        :: else
                        fi
                };
                covered[i] = 0;
                nranges[i] = 0;
                fifo_pages[i] = 0
           }
        fi
}
#else
#define sync_take(i)  skip
#endif

inline begin_use(i)
{
        atomic { SAFE(USE, i, i, 0, !exclusive && all_good(i)); inside[i] = 1 }
}

inline look_up(i, page)
{
        atomic {
                SAFE(LOOK_UP, i, page, current[page], !exclusive);
                inside[i] = 1;
                cache(i, page) = current[page]
        }
}

inline use_cached(i, page)
{
        d_step { SAFE(USE_CACHED, i, page, cache(i, page), inside[i] && good(i, page)) }
}

#ifdef LEND
inline count_lent(from, io)
{
        d_step { DO(LEND_COUNT, from, from, 0); drain(from); count_up(lent_seen) }
}

/* An I/O is started by a participant, and inside from then on. */
inline sync_lend(from, io)
{
        d_step {
                IF(LEND_STORE, from, io, gen, !busy[io]);
                busy[io] = 1;
                inside[io] = 1;
                for (z : 0 .. NPAGES - 1) {
                        cache(io, z) = cache(from, z)
                };
                z = 0;
                store(from, LENT, gen);
                lend_fence(from)
        };
        if                              /* (D) */
#ifndef NO_LEND_STOPPED
        :: IF(LEND_STOPPED, from, from, stopped, stopped != 0);
           count_lent(from, io)
        :: IF(LEND_STOPPED, from, from, stopped, stopped == 0);
#else
        :: true;
#endif
           if
           :: IF(LEND_GEN, from, from, generation, generation == gen)
#ifndef NO_LEND_GEN
           :: IF(LEND_GEN, from, from, generation, generation != gen);
              count_lent(from, io)
#else
           :: else
#endif
           fi
        fi
}
#endif

/* --- guest mode --- */

inline sync_pending(i)
{
        if
        :: IF(PENDING_REQUESTS, i, i, 1, requests[i]); pending = 1
        :: IF(PENDING_REQUESTS, i, i, 0, !requests[i]);
           if
           :: IF(PENDING_STOPPED, i, i, stopped, stopped != 0); pending = 1
           :: IF(PENDING_STOPPED, i, i, stopped, stopped == 0);
              if
              :: IF(PENDING_GEN, i, i, generation, generation != gen); pending = 1
              :: IF(PENDING_GEN, i, i, generation, generation == gen); pending = 0
              fi
           fi
        fi
}

/* An exchange, which is a fence, too. */
inline leave_guest(i)
{
        drain(i);
        if
        :: mode[i] == EXITING -> kicked[i] = 1
        :: else
        fi;
        mode[i] = OUTSIDE
}

/* Exactly once for each kick; the signal may have yet to come. */
inline take_kick(i)
{
        if
        :: kicked[i];
#ifndef NOT_BLOCKED
           d_step { IF(TAKE_KICK, i, i, 0, signalled[i]); signalled[i] = 0; kicked[i] = 0 }
#else
           kicked[i] = 0
#endif
        :: !kicked[i]
        fi
}

inline sync_guest_begin(i)
{
        d_step {                        /* (B) */
                DO(GUEST_BEGIN, i, i, 0);
                store(i, MODE, IN_GUEST);
                begin_fence(i)
        };
#ifdef NO_BEGIN_CHECK
        pending = 0;
#else
        sync_pending(i);
#endif
        if
        :: pending; d_step { DO(GUEST_BACK, i, i, mode[i]); leave_guest(i) }; take_kick(i)
        :: else
#ifdef TAKE_AFTER_BEGIN
           signalled[i] = 0
#endif
        fi
}

/* A guest that never exits by itself, but for `exits` times, and but for the end of it all. The
 * signal ends KVM_RUN, whether it comes then or has come before. */
inline kvm_run(i)
{
        if
        :: IF(RUN, i, i, 1, signalled[i])
        :: d_step { IF(RUN, i, i, 0, !signalled[i]); in_run[i] = 1 };
           if
           :: IF(RUN_END, i, i, 1, !in_run[i])
           :: d_step { IF(RUN_END, i, i, 0, may_exit && in_run[i]); in_run[i] = 0; used_exit }
           fi
        fi
}

inline sync_guest_end(i)
{
        d_step { DO(GUEST_END, i, i, mode[i]); leave_guest(i) };
        take_kick(i)
}

inline sync_test_clear(i)
{
        if
        :: IF(TEST_REQUEST, i, i, 0, !requests[i])
        :: IF(TEST_REQUEST, i, i, 1, requests[i]);
           d_step { DO(CLEAR_REQUEST, i, i, requests[i]); drain(i); requests[i] = 0 }
        fi
}

inline signal(who, k)
{
        d_step {
                DO(SIGNAL, who, k, 0);
                in_run[k] = 0;
#ifndef NOT_BLOCKED
                signalled[k] = 1        /* and stays, for it is blocked */
#endif
        }
}

#include "initiators.pml"
