/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread does between two looks at memory that another one is about to change. */
#ifndef RAMET_BASE_SPIN_H
#define RAMET_BASE_SPIN_H

static inline void spin_pause(void)
{
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
}

#endif
