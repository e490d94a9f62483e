/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may go on, and for how long the others wait: locks between processes, and the two waits of
 * the library that may take long.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

int wc_os_try_lock(int fd)
{
    int rc;
    ENTER("try_lock");
    do
        rc = flock(fd, LOCK_EX | LOCK_NB);
    while (rc < 0 && errno == EINTR);
    return wc_os_result(rc);
}

/* An open-file-description lock: unlike fcntl's older ones it is not lost when another descriptor
 * of that file is closed, and excludes other threads too. */
#ifdef F_OFD_SETLK
static int set_byte(int fd, uint64_t offset, short type)
{
    struct flock lock;
    int rc;
    memset(&lock, 0, sizeof(lock)); /* l_pid has to be 0 */
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)offset;
    lock.l_len = 1;
    do
        rc = fcntl(fd, F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    /* EACCES, which POSIX allows for "another has it", is here a security module's: nobody has it,
     * and nobody will ever give it back. */
    return wc_os_result(rc);
}

int wc_os_try_lock_byte(int fd, uint64_t offset)
{
    ENTER("try_lock_byte");
    if (LACKING(WC_OS_NO_BYTE_LOCKS))
        return -ENOLCK;
    return set_byte(fd, offset, F_WRLCK);
}

void wc_os_unlock_byte(int fd, uint64_t offset)
{
    (void)set_byte(fd, offset, F_UNLCK);
}
#else
int wc_os_try_lock_byte(int fd, uint64_t offset)
{
    (void)fd, (void)offset;
    return -ENOLCK;
}

void wc_os_unlock_byte(int fd, uint64_t offset)
{
    (void)fd, (void)offset;
}
#endif

/*
 * The mark is in what the kernel keeps with a description and uses only for descriptors with
 * O_ASYNC, which none of ours is: whom to signal, and how. The owner is set first, so that whoever
 * sees the signal sees its owner too, or 0 if that process is gone.
 */
#ifdef F_SETSIG
int wc_os_mark(int fd)
{
    int rc = fcntl(fd, F_SETOWN, getpid());
    if (rc == 0)
        rc = fcntl(fd, F_SETSIG, SIGWINCH);
    return wc_os_result(rc);
}

int wc_os_is_inherited(int fd)
{
    return fcntl(fd, F_GETSIG) == SIGWINCH && fcntl(fd, F_GETOWN) != getpid();
}
#else
int wc_os_mark(int fd)
{
    (void)fd;
    return -ENOSYS;
}

int wc_os_is_inherited(int fd)
{
    (void)fd;
    return 0;
}
#endif

/* ---- waits ---- */

#ifdef WASMCACHE_TESTING
int (*wc_os_wait_hook)(uint64_t ns);
#endif

void wc_os_sleep(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
#ifdef WASMCACHE_TESTING
    if (wc_os_wait_hook && wc_os_wait_hook(ns))
        return;
#endif
    (void)nanosleep(&time, NULL);
}

int wc_os_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    int rc = pthread_condattr_init(&attributes);
    if (rc)
        return -rc;
    rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (rc == 0)
        rc = pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
    return -rc;
}

void wc_os_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    struct timespec until;
    uint64_t end;
#ifdef WASMCACHE_TESTING
    if (wc_os_wait_hook) {
        int done;
        pthread_mutex_unlock(lock);
        done = wc_os_wait_hook(ns);
        pthread_mutex_lock(lock);
        if (done)
            return;
    }
#endif
    end = wc_os_monotonic_ns() + ns;
    until.tv_sec = (time_t)(end / 1000000000u);
    until.tv_nsec = (long)(end % 1000000000u);
    (void)pthread_cond_timedwait(cond, lock, &until);
}
