/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recording what happens in this module, for the replay in tests/model. In a build that does not
 * define RAMET_SYNC_TRACE, TRACED(..., operation) is the operation and nothing else.
 *
 * In one that does, an operation and its record are done together under one lock, so that the
 * records stand in the order of the operations. The program that records brings the functions.
 */
#ifndef RAMET_SYNC_TRACE_H
#define RAMET_SYNC_TRACE_H

#ifdef RAMET_SYNC_TRACE

#include <stdint.h>

#include "sync/trace_events.h"

struct sync_participant;

int sync_trace_id(const struct sync_participant *p);
int sync_trace_me(void); /* the calling thread, as an initiator */
void sync_trace_lock(void);
void sync_trace_unlock(int event, int who, int p, uint64_t value);

/* @value may use v_, the result of @operation. */
#define TRACED_AS(event, who, p, value, operation)                                                 \
        ({                                                                                         \
                sync_trace_lock();                                                                 \
                __auto_type v_ = (operation);                                                      \
                sync_trace_unlock(event, who, p, (uint64_t)(value));                               \
                v_;                                                                                \
        })
#define TRACED_DO(event, who, p, value, operation)                                                 \
        do {                                                                                       \
                sync_trace_lock();                                                                 \
                operation;                                                                         \
                sync_trace_unlock(event, who, p, (uint64_t)(value));                               \
        } while (0)
#define TRACE_ID(p) sync_trace_id(p)
#define TRACE_ME()  sync_trace_me()

#else

#define TRACED_AS(event, who, p, value, operation) (operation)
#define TRACED_DO(event, who, p, value, operation) operation

#endif

/* By a participant: the result is the value; and an operation without a result. */
#define TRACED(event, p, operation) TRACED_AS(event, TRACE_ID(p), TRACE_ID(p), v_, operation)
#define TRACED_STORE(event, p, value, operation)                                                   \
        TRACED_DO(event, TRACE_ID(p), TRACE_ID(p), value, operation)
/* By an initiator, alone or on a participant. */
#define TRACED_BY_ME(event, value, operation) TRACED_AS(event, TRACE_ME(), 0, value, operation)
#define TRACED_ON(event, p, value, operation)                                                      \
        TRACED_AS(event, TRACE_ME(), TRACE_ID(p), value, operation)

#endif
