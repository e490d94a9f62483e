/* SPDX-License-Identifier: Apache-2.0 */
#include "stripe.h"

#include <stdatomic.h>

unsigned wc_stripe(void)
{
    static atomic_uint next;
    static _Thread_local unsigned mine; /* 0: none yet */
    if (!mine)
        mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % WC_STRIPES;
    return mine - 1;
}
