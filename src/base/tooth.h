/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Teeth: deliberate defects, one at a time, that a build has only with `meson -Dtooth=NAME`. The
 * suite `teeth` builds each of them and expects that a test notices (tests/teeth.py).
 */
#ifndef RAMET_BASE_TOOTH_H
#define RAMET_BASE_TOOTH_H

/* An initiator does not wait for those who may still use what was before. */
#ifndef RAMET_TOOTH_NO_WAIT
#define RAMET_TOOTH_NO_WAIT 0
#endif

/* A worker keeps its cache when it turns to another VM. */
#ifndef RAMET_TOOTH_NO_LAST_RAN
#define RAMET_TOOTH_NO_LAST_RAN 0
#endif

/* A participant that has taken a coarse flush does not record ranges again. */
#ifndef RAMET_TOOTH_NO_FIFO_PURGE
#define RAMET_TOOTH_NO_FIFO_PURGE 0
#endif

/* A device writes to a page that is still shared with the template. */
#ifndef RAMET_TOOTH_NO_DEVICE_BREAK
#define RAMET_TOOTH_NO_DEVICE_BREAK 0
#endif

#endif
