/* SPDX-License-Identifier: Apache-2.0 */
/* Row 37: what a program that is started meanwhile inherits. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"

static struct tally *leak_tally;

/* What a program that is started now has. */
static void start_a_program(void *argument)
{
    char out[100];
    int ends[2], status;
    ssize_t n;
    pid_t child;
    (void)argument;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        execl("/proc/self/exe", "torture", "--descriptors", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    n = read(ends[0], out, sizeof(out) - 1);
    out[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    leak_tally->runs++;
    tally_check(leak_tally, 'L', strcmp(out, "0\n") == 0, "descriptors inherited: %s", out);
}

/* Descriptors above 2 that this program was started with. */
int row_leak_descriptors(void)
{
    int found = 0;
    for (int fd = 3; fd < 1024; fd++)
        found += fcntl(fd, F_GETFD) >= 0;
    printf("%d\n", found);
    return 0;
}

void row_leak(struct row_run *run)
{
    struct rig r;
    const unsigned rounds = run->tier == TIER_QUICK ? 5 : 200;
    leak_tally = run->tally;
    /* What this program itself was started with is none of the library's. */
    for (int fd = 3; fd < 1024; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    rig_init(&r);
    r.engine.on_compile = start_a_program; /* with the lock held */
    rig_open(&r);
    for (unsigned i = 0; i < rounds; i++) {
        char name[40];
        snprintf(name, sizeof(name), "module %u", i);
        tally_check(run->tally, 'D', rig_get(&r, name, NULL) == 0, "a get fails");
        start_a_program(NULL);
    }
    r.engine.on_compile = NULL;
    lab_rig_end(run->tally, &r);
}
