/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The events of a recorded trace, which are the transitions of the model in tests/model. Only
 * defines: spin's preprocessor reads this file, too. The last ones are recorded by the test that
 * makes the trace.
 */
#define EV_JOIN                1
#define EV_LEAVE               2
#define EV_UNLIST              3
#define EV_SET_ENTERED         4
#define EV_LEFT_BUMP           5
#define EV_ENTER_STOPPED       6
#define EV_MARK_STOPPED        7
#define EV_ENTER_GEN           8
#define EV_ENTER_STORE         9
#define EV_ENTER_CHECK_STOPPED 10
#define EV_ENTER_CHECK_GEN     11
#define EV_TAKE_POSTED         12
#define EV_TAKE                13
#define EV_LEND_STORE          14
#define EV_LEND_STOPPED        15
#define EV_LEND_GEN            16
#define EV_LEND_COUNT          17
#define EV_GUEST_BEGIN         18
#define EV_GUEST_BACK          19
#define EV_GUEST_END           20
#define EV_PENDING_REQUESTS    21
#define EV_PENDING_STOPPED     22
#define EV_PENDING_GEN         23
#define EV_TEST_REQUEST        24
#define EV_CLEAR_REQUEST       25
#define EV_REQUEST             26
#define EV_REQUEST_MODE        27
#define EV_KICK_LOOK           29
#define EV_KICK                30
#define EV_POST                31
#define EV_BUMP                32
#define EV_SCAN_LENT           33
#define EV_SCAN                34
#define EV_AWAIT               35
#define EV_AWAIT_FAILED        36
#define EV_SCAN_LENT_AGAIN     37
#define EV_READ_LEFT           38
#define EV_DRAW_TURN           39
#define EV_READ_TURN           40
#define EV_END_TURN            41
#define EV_STOP                42
#define EV_RESUME              43

#define EV_SIGNAL     50
#define EV_TAKE_KICK  51
#define EV_RUN        52
#define EV_RUN_END    53
#define EV_FLUSH      54
#define EV_REPLACE    60
#define EV_FREE       55
#define EV_STOPPED    56
#define EV_USE        57
#define EV_LOOK_UP    58
#define EV_USE_CACHED 59
