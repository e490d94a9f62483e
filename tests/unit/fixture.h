/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

/* A rig as *state of a cmocka test, for cmocka_unit_test_setup_teardown(). */

#include "support/rig.h"

int fixture_rig(void **state);      /* not open yet: r->options may be changed */
int fixture_open_rig(void **state); /* open and attached */
/* Also ends what the seam was told to do. */
int fixture_end(void **state);

#endif
