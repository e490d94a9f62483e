/* SPDX-License-Identifier: Apache-2.0 */
#include "seam.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

const struct seam_variant seam_variants[] = {
    {"all there", 0},
    {"no O_TMPFILE", WC_OS_NO_TMPFILE},
    {"no O_TMPFILE, no links", WC_OS_NO_TMPFILE | WC_OS_NO_LINK},
    {"no renameat2", WC_OS_NO_NOREPLACE},
    {"no /proc", WC_OS_NO_PROC},
    {"no views, no room reserved, no locks",
     WC_OS_NO_VIEW | WC_OS_NO_RESERVE | WC_OS_NO_BYTE_LOCKS},
    {"no O_TMPFILE, no links, no renameat2", WC_OS_NO_TMPFILE | WC_OS_NO_LINK | WC_OS_NO_NOREPLACE},
};
const unsigned seam_variant_count = sizeof(seam_variants) / sizeof(*seam_variants);

struct act {
    unsigned nth;
    void (*act)(void *);
    void *argument;
};

static struct {
    unsigned calls, matched, nth, exit_at;
    const char *only; /* NULL: any call */
    int error, sticky, met;
    struct act act, second;
    char log[8192];
    size_t used;
} now;

static void note(const char *call)
{
    size_t length = strlen(call);
    now.calls++;
    if (now.used + length + 2 > sizeof(now.log))
        return;
    memcpy(now.log + now.used, call, length);
    now.log[now.used + length] = ',';
    now.used += length + 1;
    now.log[now.used] = '\0';
}

static int hook(const char *call);

/* Whoever an act has to wait for is the call that it is in the middle of: its time is over at once.
 */
static int waits_no_more(uint64_t ns)
{
    wc_os_monotonic_forced += (int64_t)ns;
    return 1;
}

static void perform(const struct act *act)
{
    int (*const wait_hook)(uint64_t ns) = wc_os_wait_hook;
    const int64_t clock = wc_os_monotonic_forced;
    wc_os_hook = NULL;
    wc_os_monotonic_forced = (int64_t)wc_os_monotonic_ns();
    wc_os_wait_hook = waits_no_more;
    act->act(act->argument);
    wc_os_wait_hook = wait_hook;
    wc_os_monotonic_forced = clock;
    wc_os_hook = hook;
}

static int hook(const char *call)
{
    int here = 0;
    note(call);
    if (now.nth && (!now.only || strcmp(now.only, call) == 0)) {
        now.matched++;
        here = now.matched == now.nth || (now.sticky && now.matched > now.nth);
    }
    if (here) {
        now.met = 1;
        if (now.act.act)
            perform(&now.act);
    }
    if (now.second.nth) {
        now.met = now.calls >= now.second.nth;
        if (now.calls == now.second.nth)
            perform(&now.second);
    }
    if (now.calls == now.exit_at)
        _exit(0);
    return here ? -now.error : 0;
}

static void start(const char *only, unsigned nth)
{
    const struct act none = {0, NULL, NULL};
    now.calls = now.matched = now.exit_at = 0;
    now.nth = nth;
    now.only = only;
    now.error = now.sticky = now.met = 0;
    now.act = now.second = none;
    now.used = 0;
    now.log[0] = '\0';
    wc_os_hook = hook;
}

void seam_record(void)
{
    start(NULL, 0);
}

void seam_fail(unsigned nth, int error, int sticky)
{
    start(NULL, nth);
    now.error = error;
    now.sticky = sticky;
}

void seam_fail_call(const char *call, unsigned nth, int error)
{
    start(call, nth);
    now.error = error;
    now.sticky = 1;
}

void seam_act(unsigned nth, void (*act)(void *), void *argument)
{
    start(NULL, nth);
    now.act.act = act;
    now.act.argument = argument;
}

void seam_act_call(const char *call, unsigned nth, void (*act)(void *), void *argument)
{
    start(call, nth);
    now.act.act = act;
    now.act.argument = argument;
}

void seam_act_each(const char *call, void (*act)(void *), void *argument)
{
    seam_act_call(call, 1, act, argument);
    now.sticky = 1;
}

void seam_also_act(unsigned nth, void (*act)(void *), void *argument)
{
    now.second.nth = nth;
    now.second.act = act;
    now.second.argument = argument;
}

void seam_exit(unsigned nth)
{
    start(NULL, 0);
    now.exit_at = nth;
}

void seam_also_exit(unsigned nth)
{
    now.exit_at = nth;
}

void seam_off(void)
{
    wc_os_hook = NULL;
}

int seam_met(void)
{
    return now.met;
}

unsigned seam_calls(void)
{
    return now.calls;
}

const char *seam_log(void)
{
    return now.log;
}

unsigned seam_calls_of(const char *call)
{
    const size_t length = strlen(call);
    unsigned count = 0;
    for (const char *at = now.log; *at; at = strchr(at, ',') + 1)
        count += strncmp(at, call, length) == 0 && at[length] == ',';
    return count;
}
