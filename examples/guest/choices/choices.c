// SPDX-License-Identifier: Apache-2.0
/*
 * The guest of examples/tree_search.c: a game for one. From 1, with three moves, to exactly GOAL.
 *
 * At each turn it rings the doorbell with how far it is from the goal, and what RESULT then reads
 * is the move to make: so whoever forks it into three clones has tried all three. It prints the
 * number that it has come to. It powers off when a move is none of 1, 2 and 3.
 */
#include "rt/rt.h"

#define GOAL 707u

static uint32_t turn(uint32_t number)
{
        printf("%u\n", number);
        outl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RING,
             number > GOAL ? number - GOAL : GOAL - number);
        return inl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RESULT);
}

void guest_main(void)
{
        for (uint32_t number = 1;;) {
                switch (turn(number)) {
                case 1:
                        number *= 2;
                        break;
                case 2:
                        number += 7;
                        break;
                case 3:
                        number = number * number % 1009;
                        break;
                default:
                        guest_poweroff();
                }
        }
}
