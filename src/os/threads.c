/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of ours, and how they tell a host's loop that there is something to do.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

int wc_os_thread_start(pthread_t *out, size_t stack, void *(*body)(void *), void *argument)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    pthread_attr_t attributes;
    sigset_t all, before;
    int rc;

    ENTER("thread_start");
    rc = pthread_attr_init(&attributes);
    if (rc)
        return -rc;
    if (stack)
        rc = pthread_attr_setstacksize(&attributes, (stack + page - 1) / page * page);
    if (rc == 0) {
        /* A thread starts with the mask of its maker: there is no moment in which it could be the
         * one that a signal of the host's is delivered to. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        rc = pthread_create(out, &attributes, body, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return -rc;
}

void wc_os_name_thread(const char *name)
{
    /* Of another thread the C library sets it through a file, which it opens without
     * close-on-exec. */
    (void)pthread_setname_np(pthread_self(), name);
}

unsigned wc_os_cpus(void)
{
    cpu_set_t set;
    long online;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set) > 0 ? (unsigned)CPU_COUNT(&set) : 1;
    /* More CPUs than the set has room for. */
    online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

int64_t wc_os_pid(void)
{
    return (int64_t)getpid();
}

/* ---- bells ---- */

int wc_os_bell_open(struct wc_os_bell *bell)
{
    int ends[2];
    ENTER("bell_open");
    if (!LACKING(WC_OS_NO_EVENTFD)) {
        bell->fd = bell->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (bell->fd >= 0)
            return 0;
        /* EPERM: a filter of system calls that does not know it. */
        if (errno != ENOSYS && errno != EINVAL && errno != ENODEV && errno != EPERM)
            return -errno;
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        bell->fd = bell->ring_fd = -1;
        return -errno;
    }
    bell->fd = ends[0];
    bell->ring_fd = ends[1];
    return 0;
}

void wc_os_bell_ring(const struct wc_os_bell *bell)
{
    const uint64_t one = 1;
    ssize_t n;
    /* A pipe gets eight bytes at once or is full, which is as good. */
    do
        n = write(bell->ring_fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

void wc_os_bell_hush(const struct wc_os_bell *bell)
{
    uint64_t drop;
    ssize_t n;
    do
        n = read(bell->fd, &drop, sizeof(drop));
    while ((n < 0 && errno == EINTR) || (n > 0 && bell->ring_fd != bell->fd));
}

void wc_os_bell_close(struct wc_os_bell *bell)
{
    if (bell->ring_fd != bell->fd)
        wc_os_close(bell->ring_fd);
    wc_os_close(bell->fd);
    bell->fd = bell->ring_fd = -1;
}
