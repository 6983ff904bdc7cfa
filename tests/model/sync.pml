/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation barrier of src/sync, for spin. transitions.pml has its words and what each function
 * does to them; here are the threads that call them.
 */
#ifndef NPART
#define NPART 2                 /* participants; with LEND the last one is an I/O in flight */
#endif
#ifndef NINIT
#define NINIT 2                 /* initiators that are no participants */
#endif
#ifndef NPAGES
#define NPAGES 1
#endif
#ifndef FIFO_SIZE
#define FIFO_SIZE 1
#endif
#ifdef REPLAY
#include "replay.pml"
#else
#define GEN byte
#define FOREVER 100             /* above every generation */
#define replaying 0
#define about_to(op, who)           true
#define died(i)                     dead[i]
#define DO(op, who, p, val)         true
#define IF(op, who, p, val, cond)   (cond)
#define SAFE(op, who, p, val, cond) assert(cond)
#endif
#ifdef LEND
#define NVCPU (NPART - 1)
#else
#define NVCPU NPART
#endif
#define is_vcpu(k) ((k) < NVCPU)

#ifndef INIT1
#define INIT1 0
#endif
#ifndef OWN
#define OWN 0
#endif
#define DO_FLUSH   1
#define DO_STOP    2
#define DO_REQUEST 4
#define DO_FORGET  8            /* a flush that forgets everything, not only a page */

byte unfinished = NINIT + (OWN != 0);
#define finished   (unfinished == 0)

bit dead[NPART];

/* Guests exit by themselves EXITS times, and when nobody is left to kick them. */
#ifndef EXITS
#define EXITS 0
#endif
byte exits;
byte ahead = (OWN != 0);        /* initiators that first have to come out of the guest */
#define unkicked   (unfinished == ahead)
#ifdef REPLAY
#define may_exit   true
#define used_exit  skip
#else
#define may_exit   (unkicked || exits < EXITS)
#define used_exit  if :: unkicked :: else -> exits++ fi
#endif

#include "transitions.pml"

inline initiate(a, what, page)
{
        if
        :: what & (DO_FLUSH | DO_FORGET) ->
           replace(a, page);
           sync_flush(a, what & DO_FORGET, page);
           free_old(a, page)
        :: what & DO_STOP ->
           sync_stop(a);
           replace(a, page);
           lock_list();
           sync_post_locked(a, 0, page);
           list_lock = 0;
           free_old(a, page);
           sync_resume(a)
        :: what & DO_REQUEST ->
           sync_request(a, 0);
           !requests[0] || !joined[0]
        fi
}

#ifdef REPLAY
/* What a trace may say that a thread initiates. */
inline flush_of(a, coarse, page)
{
        DO(FLUSH, a, page, coarse);
        replace(a, page);
        sync_flush(a, coarse, page);
        free_old(a, page)
}

inline anything(a)
{
        if
        :: about_to_flush(a, 0, 0) -> flush_of(a, 0, 0)
        :: about_to_flush(a, 1, 0) -> flush_of(a, 0, 1)
        :: about_to_flush(a, 0, 1) -> flush_of(a, 1, 0)
        :: about_to_flush(a, 1, 1) -> flush_of(a, 1, 1)
        :: about_to(DRAW_TURN, a) ->
           sync_stop(a);
           replace(a, 0);
           lock_list();
           sync_post_locked(a, 1, 0);
           list_lock = 0;
           free_old(a, 0);
           sync_resume(a)
        :: about_to_ask(a, 0) -> sync_request(a, 0)
        :: about_to_ask(a, 1) -> sync_request(a, 1)
        fi
}
#endif

proctype initiator(byte a; byte what; byte page)
{
        byte n;
        GEN mine, newest;
        bit found, look, alone;

#ifdef REPLAY
        do
        :: anything(a)
        od;
#endif
        initiate(a, what, page);
        unfinished--
}

/* A vCPU thread: a read section, in it guest mode and dispatch; outside, what it initiates itself. */
inline section(i)
{
#ifdef TAKE_BEFORE_ENTER
        sync_take(i);
        sync_enter(i);
#else
        sync_enter(i);
        sync_take(i);
#endif
#ifdef FIFO
        begin_use(i);
#ifdef REPLAY
        skip;
#else
        if
        :: cache(i, 0) == 0 -> look_up(i, 0)
        :: cache(i, 1) == 0 -> look_up(i, 1)
        :: true
        fi;
#endif
#else
        look_up(i, 0);
#endif
        do
#ifndef NO_GUEST
        :: sync_guest_begin(i);
           if
           :: !pending -> kvm_run(i); sync_guest_end(i)
           :: pending -> pending = 0;
#if !defined(IGNORE_PENDING) && !defined(REPLAY)
              break
#endif
           fi
#endif
#ifdef LEND
        :: sync_lend(i, NPART - 1)
#endif
#ifdef REPLAY
        :: look_up(i, 0)
        :: look_up(i, 1)
        :: use_cached(i, 0)
        :: use_cached(i, 1)
        :: sync_test_clear(i)
#endif
        :: about_to(SET_ENTERED, i) -> break
        od;
#if ((INIT0 | INIT1 | OWN) & DO_REQUEST) && !defined(REPLAY)
        sync_test_clear(i);
#endif
        skip;
        sync_exit(i)
}

proctype participant(byte i)
{
        GEN gen;
        bit pending, told, refused;
#if OWN
        byte n;
        GEN mine, newest;
        bit found, look, alone;
#endif

#ifdef DEATH
        {
#endif
                sync_join(i);
                do
                :: finished -> break
                :: !finished && about_to(ENTER_STOPPED, i) -> section(i)
#ifdef REPLAY
                :: anything(NINIT + i)
#elif OWN
                :: atomic { i == 0 && ahead -> ahead = 0 };
                   initiate(NINIT + i, OWN, 0);
                   unfinished--
#endif
                od
#ifdef DEATH
        } unless {
                died(i) && !told        /* no thread ends within set_entered() */
        };
        told = 0;
#endif
        in_run[i] = 0;
#ifndef NEVER_LEFT
        sync_leave(i)
#endif
}

#if defined(DEATH) && !defined(REPLAY)
proctype death()
{
        if
        :: dead[0] = 1
        :: true
        fi
}
#endif

#ifdef LEND
proctype in_flight(byte i)
{
        GEN gen;
        bit told;

#ifdef REPLAY
        sync_join(i);
#endif
        do
#ifdef REPLAY
        :: use_cached(i, 0)
        :: use_cached(i, 1)
#endif
        :: busy[i] && about_to(SET_ENTERED, i) -> sync_exit(i); busy[i] = 0
        :: finished && !busy[i] -> break
        od
}
#endif

proctype store_buffers()
{
end:    do
        :: d_step { sb_word[0] != 0 -> drain(0) }
#if NPART > 1
        :: d_step { sb_word[1] != 0 -> drain(1) }
#endif
#if NPART > 2
        :: d_step { sb_word[2] != 0 -> drain(2) }
#endif
        od
}

init {
        atomic {
#ifdef REPLAY
                c_code { ev_load(); };
                NEXT;
#endif
                current[0] = 1;
#if NPAGES > 1
                current[1] = 1;
#endif
                run participant(0);
#if NVCPU > 1
                run participant(1);
#endif
#ifdef LEND
#ifndef REPLAY
                joined[NPART - 1] = 1;
                listed[NPART - 1] = 1;
#endif
                run in_flight(NPART - 1);
#endif
                run initiator(0, INIT0, 0);
#if NINIT > 1
                run initiator(1, INIT1, NPAGES - 1);
#endif
#if defined(DEATH) && !defined(REPLAY)
                run death();
#endif
                run store_buffers()
        }
}

#ifdef PROGRESS
ltl every_wait_ends { <> finished }
#endif
