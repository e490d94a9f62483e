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
    {"no O_TMPFILE, no links, no renameat2", WC_OS_NO_TMPFILE | WC_OS_NO_LINK | WC_OS_NO_NOREPLACE},
};
const unsigned seam_variant_count = sizeof(seam_variants) / sizeof(*seam_variants);

static struct {
    unsigned calls, matched, nth;
    const char *only; /* NULL: any call */
    int error, sticky, exits, met;
    void (*act)(void *);
    void *argument;
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

static int hook(const char *call)
{
    int here;
    note(call);
    if (!now.nth || (now.only && strcmp(now.only, call) != 0))
        return 0;
    now.matched++;
    here = now.matched == now.nth || (now.sticky && now.matched > now.nth);
    if (!here)
        return 0;
    now.met = 1;
    if (now.exits)
        _exit(0);
    if (now.act) {
        wc_os_hook = NULL;
        now.act(now.argument);
        wc_os_hook = hook;
    }
    return -now.error;
}

static void start(const char *only, unsigned nth)
{
    now.calls = now.matched = 0;
    now.nth = nth;
    now.only = only;
    now.error = now.sticky = now.exits = now.met = 0;
    now.act = NULL;
    now.argument = NULL;
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
    now.act = act;
    now.argument = argument;
}

void seam_act_call(const char *call, unsigned nth, void (*act)(void *), void *argument)
{
    start(call, nth);
    now.act = act;
    now.argument = argument;
}

void seam_exit(unsigned nth)
{
    start(NULL, nth);
    now.exits = 1;
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
