/* SPDX-License-Identifier: Apache-2.0 */
/* Stripes: each thread has one, always the same, and threads that live at the same time others. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "stripe.h"

static void *ask(void *argument)
{
    unsigned *mine = argument;
    *mine = wc_stripe();
    for (int i = 0; i < 100; i++)
        if (wc_stripe() != *mine)
            return argument;
    return NULL;
}

static void threads_have_their_own(void **state)
{
    pthread_t threads[WC_STRIPES];
    unsigned mine[WC_STRIPES], of[WC_STRIPES] = {0};
    (void)state;
    for (int i = 0; i < WC_STRIPES; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &mine[i]), 0);
    for (int i = 0; i < WC_STRIPES; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
        assert_true(mine[i] < WC_STRIPES);
        of[mine[i]]++;
    }
    for (int i = 0; i < WC_STRIPES; i++)
        assert_int_equal(of[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_have_their_own)};
    return cmocka_run_group_tests_name("stripe", tests, NULL, NULL);
}
