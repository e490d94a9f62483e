/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <stdlib.h>

#include "seam.h"

int fixture_rig(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    rig_init(r);
    *state = r;
    return 0;
}

int fixture_open_rig(void **state)
{
    if (fixture_rig(state) < 0)
        return -1;
    rig_open(*state);
    return 0;
}

int fixture_end(void **state)
{
    struct rig *r = *state;
    seam_off();
    wc_os_lacking = 0;
    wc_os_monotonic_forced = -1;
    wc_os_wall_forced = -1;
    wc_os_settles_forced = -1;
    wc_os_wait_hook = NULL;
    rig_end(r);
    free(r);
    return 0;
}
