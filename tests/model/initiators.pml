/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other half of transitions.pml, which it belongs to: kicks, waits, flush and stop.
 */

inline lock_list()
{
        d_step { !list_lock -> list_lock = 1 }
}

/* (B): compare and swap, so that of many only one kicks. */
inline kick(who, k)
{
        if
        :: IF(KICK, who, k, 0, mode[k] != IN_GUEST)
        :: d_step { IF(KICK, who, k, 1, mode[k] == IN_GUEST); mode[k] = EXITING };
           signal(who, k)
        fi
}

/* With list_lock held, and dropped at the end. */
inline kick_all(who, before)
{
        n = NPART;
        do
        :: atomic {
                IF(KICK_LOOK, who, n - 1, entered[n - 1],
                   on_listed && is_vcpu(n - 1) && entered[n - 1] != 0 && entered[n - 1] < before);
                n--
           };
           kick(who, n)
        :: d_step {
                IF(KICK_LOOK, who, n - 1, entered[n - 1],
                   on_listed && (!is_vcpu(n - 1) || entered[n - 1] == 0 || entered[n - 1] >= before));
                n--
           }
        :: d_step { on_unlisted -> n-- }
        :: atomic { n == 0 -> list_lock = 0; break }
        od
}

inline publish_request(who, k)
{
        d_step { DO(REQUEST, who, k, requests[k]); requests[k] = 1 }
}

inline kick_one(who, k)
{
        if
        :: IF(REQUEST_MODE, who, k, mode[k], mode[k] != IN_GUEST)
        :: IF(REQUEST_MODE, who, k, mode[k], mode[k] == IN_GUEST);
           lock_list();
           kick(who, k);
           list_lock = 0
        fi
}

inline sync_request(who, k)
{
#ifdef KICK_BEFORE_REQUEST
        kick_one(who, k);
        publish_request(who, k)
#else
        publish_request(who, k);
        kick_one(who, k)
#endif
}

/* --- the initiator's side --- */

#ifdef LEND
#define lent_is(who, seen)  (lent_seen[who] == seen)
#define saw_lent(who)       (lent_seen[who] != NOT_LOOKED)
#else
#define saw_lent(who)       true
#endif

#define uses_old(k, before) (entered[k] != 0 && entered[k] < (before))

/* Does somebody still use what was before @before? If so, and @sleep, have it wake us. */
inline somebody_inside(who, before, sleep)
{
        n = NPART;
        do
#ifdef LEND
        :: d_step {                                                     /* (D) */
                IF(SCAN_LENT, who, 0, 0, n == NPART && !saw_lent(who));
                lent_seen[who] = UNCHANGED
           }
#endif
        :: d_step {
                IF(SCAN, who, n - 1, word_of(n - 1),
                   on_listed && can_walk && !found && !look && saw_lent(who));
                list_lock = 1;
                if
                :: !uses_old(n - 1, before) -> n--
                :: else ->
                        if
                        :: sleep && !awaited[n - 1] -> look = 1
                        :: else -> found = 1
                        fi
                fi
           }
        :: d_step {                                                     /* (C) */
                IF(AWAIT, who, n - 1, word_of(n - 1),
                   look && uses_old(n - 1, before) && !awaited[n - 1]);
                look = 0;
                found = 1;
#ifndef NO_AWAITED
                awaited[n - 1] = 1
#endif
           }
        :: d_step {                             /* the compare-and-swap fails: look at what it saw */
                IF(AWAIT_FAILED, who, n - 1, word_of(n - 1),
                   look && (!uses_old(n - 1, before) || awaited[n - 1] || replaying));
                if
                :: !uses_old(n - 1, before) -> look = 0; n--
                :: uses_old(n - 1, before) && awaited[n - 1] -> look = 0; found = 1
                :: else                 /* it changed, and is still old: once more */
                fi
           }
        :: d_step { on_unlisted && can_walk && !found && saw_lent(who) -> n--; list_lock = 1 }
#if defined(LEND) && !defined(NO_LENT_RESCAN)
        :: d_step {
                IF(SCAN_LENT_AGAIN, who, 0, 1, n == 0 && !found && lent_is(who, CHANGED));
                lent_seen[who] = NOT_LOOKED;
                list_lock = 0;
                n = NPART
           }
        :: atomic {
                IF(SCAN_LENT_AGAIN, who, 0, 0, n == 0 && !found && lent_is(who, UNCHANGED));
                lent_seen[who] = NOT_LOOKED;
                list_lock = 0;
                break
           }
        :: atomic {
                found ->
                lent_seen[who] = NOT_LOOKED;
                list_lock = 0;
                n = 0;
                break
           }
#else
        :: atomic {
                n == 0 || found ->
#ifdef LEND
                lent_seen[who] = NOT_LOOKED;
#endif
                list_lock = 0;
                n = 0;
                break
           }
#endif
        od
}

inline read_left(who)
{
        d_step { DO(READ_LEFT, who, 0, 0); left_seen[who] = UNCHANGED }
}

inline wait_until_left(who, before)
{
#ifndef NO_SPINNING
        do                              /* at most 100 times */
        :: about_to(SCAN_LENT, who) ->
           somebody_inside(who, before, 0);
           if
           :: found -> found = 0
           :: else -> alone = 1; break
           fi
        :: about_to(READ_LEFT, who) -> break
        od;
#endif
        do
        :: alone -> alone = 0; break
        :: !alone ->
#ifndef LEFT_AFTER_SCAN
           read_left(who);
#endif
           somebody_inside(who, before, 1);
#ifdef LEFT_AFTER_SCAN
           read_left(who);
#endif
           if
           :: found -> found = 0;
#ifndef REPLAY
              if
              :: left_seen[who] == CHANGED
              :: d_step { left_seen[who] == UNCHANGED -> left_sleeper[who] = 1 };
                 !left_sleeper[who]
              fi
#endif
           :: else -> alone = 1; left_seen[who] = NOT_LOOKED
           fi
        od
}

/* --- the two operations --- */

/* The caller has another page mapped, and wants to reuse the old one. */
inline replace(who, page)
{
        d_step {
                DO(REPLACE, who, page, current[page] + 1);
                current[page] = current[page] + 1;
                newest = current[page]
        }
}

inline free_old(who, page)
{
        atomic {
                SAFE(FREE, who, page, newest - 1, !somebody_has(page, newest - 1));
                if
                :: newest - 1 > freed[page] -> freed[page] = newest - 1
                :: else
                fi;
                newest = 0
        }
}

inline bump_generation(who)             /* (A), (B) */
{
        atomic {
                DO(BUMP, who, 0, generation + 1);
                generation = generation + 1;
                mine = generation
        }
}

#ifdef FIFO
inline post_to(who, k, coarse, page)
{
        d_step {
                DO(POST, who, k, coarse);
                if
                :: coarse ->
                        covered[k] = 1;
#ifndef NO_PURGE
                        nranges[k] = 0;
                        fifo_pages[k] = 0
#endif
                :: else ->
                        if
                        :: covered[k]
                        :: !covered[k] && nranges[k] == FIFO_SIZE ->
#ifndef NO_OVERFLOW
                                covered[k] = 1;
                                nranges[k] = 0;
                                fifo_pages[k] = 0
#endif
                        :: !covered[k] && nranges[k] < FIFO_SIZE ->
                                nranges[k]++;
                                fifo_pages[k] = fifo_pages[k] | (1 << page)
                        fi
                fi
        }
}

inline sync_post_locked(who, coarse, page)
{
        n = NPART;
        do
        :: n > 0 -> n--;
           if
           :: listed[n] -> post_to(who, n, coarse, page)
           :: else
           fi
        :: n == 0 -> break
        od
}
#else
#define sync_post_locked(who, coarse, page) skip
#endif

inline sync_flush(who, coarse, page)
{
        lock_list();
#ifdef POST_AFTER_BUMP
        bump_generation(who);
        sync_post_locked(who, coarse, page);
        kick_all(who, mine);
        wait_until_left(who, mine);
#elif defined(KICK_BEFORE_BUMP)
        sync_post_locked(who, coarse, page);
        kick_all(who, generation + 1);
        bump_generation(who);
        wait_until_left(who, mine);
#elif defined(BUMP_AFTER_WAIT)
        sync_post_locked(who, coarse, page);
        kick_all(who, generation + 1);
        wait_until_left(who, generation);
        bump_generation(who);
#else
        sync_post_locked(who, coarse, page);
        bump_generation(who);
        kick_all(who, mine);
#ifndef NO_WAIT
        wait_until_left(who, mine);
#endif
#endif
        mine = 0
}

inline take_turn(who)                   /* (E) */
{
        d_step { DO(DRAW_TURN, who, 0, next_turn); mine = next_turn; next_turn = next_turn + 1 };
        do
        :: IF(READ_TURN, who, 0, turn, turn == mine); mine = 0; break
        :: atomic { IF(READ_TURN, who, 0, turn, turn != mine); newest = turn };
#ifndef REPLAY
           if
           :: turn != newest
           :: d_step { turn == newest -> turn_sleeper[who] = 1 };
              !turn_sleeper[who]
           fi
#endif
        od
}

inline end_turn(who)
{
        d_step { DO(END_TURN, who, 0, turn + 1); turn = turn + 1; mine = turn };
#if !defined(NO_TURN_WAKE) && !defined(REPLAY)
        if
        :: next_turn == mine
        :: next_turn != mine -> d_step { wake(turn_sleeper, NACTORS) }
        fi;
#endif
        mine = 0
}

inline sync_stop(who)
{
        take_turn(who);
        atomic { DO(STOP, who, 0, 1); stopped = 1 };                    /* (A), (B) */
        lock_list();
        bump_generation(who);
        kick_all(who, FOREVER);
#ifndef NO_STOP_WAIT
        wait_until_left(who, FOREVER);
#endif
        atomic { SAFE(STOPPED, who, 0, 0, nobody_inside); exclusive = 1; mine = 0 }
}

inline sync_resume(who)
{
        d_step {
                DO(RESUME, who, 0, stopped);
                exclusive = 0;
                mine = (stopped == 2);
                stopped = 0
        };
#if !defined(NO_RESUME_WAKE) && !defined(REPLAY)
        if
        :: mine -> d_step { wake(stopped_sleeper, NPART) }
        :: else
        fi;
#endif
        end_turn(who)
}
