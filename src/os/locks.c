/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may go on, and for how long the others wait: locks between processes, and the two waits of
 * the library that may take long.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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

/*
 * The descriptors that hold such locks, and whose they are. The child of a fork has those of its
 * parent's threads too: if the parent dies, only the child can give them back, and it may be the
 * one that waits. A slot is claimed by its pid and valid with its descriptor.
 */
enum { HELD_MAX = 64 };
static struct held {
    atomic_llong pid; /* 0: free */
    atomic_int fd;    /* and 1; 0: none yet */
} held[HELD_MAX];

static void note_held(int fd)
{
    const long long pid = wc_os_pid();
    for (int i = 0; i < HELD_MAX; i++) {
        long long free_slot = 0;
        if (atomic_compare_exchange_strong(&held[i].pid, &free_slot, pid)) {
            atomic_store(&held[i].fd, fd + 1);
            return;
        }
    }
}

static void forget_held(int fd)
{
    const long long pid = wc_os_pid();
    for (int i = 0; i < HELD_MAX; i++)
        if (atomic_load(&held[i].pid) == pid && atomic_load(&held[i].fd) == fd + 1) {
            atomic_store(&held[i].fd, 0);
            atomic_store(&held[i].pid, 0);
            return;
        }
}

/* Closes what this process has of its parent's locks on the file of `fd`. How many. */
static int drop_inherited(int fd)
{
    const long long pid = wc_os_pid();
    struct stat ours, theirs;
    int dropped = 0;
    if (fstat(fd, &ours) < 0)
        return 0;
    for (int i = 0; i < HELD_MAX; i++) {
        const long long owner = atomic_load(&held[i].pid);
        int old;
        if (!owner || owner == pid || (old = atomic_exchange(&held[i].fd, 0)) == 0)
            continue;
        atomic_store(&held[i].pid, 0);
        /* A host may have closed all descriptors and given the number to something of its own. */
        if (fstat(old - 1, &theirs) == 0 && theirs.st_dev == ours.st_dev &&
            theirs.st_ino == ours.st_ino) {
            close(old - 1);
            dropped++;
        }
    }
    return dropped;
}

int wc_os_try_lock_byte(int fd, uint64_t offset)
{
    int rc;
    ENTER("try_lock_byte");
    if (LACKING(WC_OS_NO_BYTE_LOCKS))
        return -ENOLCK;
    rc = set_byte(fd, offset, F_WRLCK);
    if (rc == -EWOULDBLOCK && drop_inherited(fd) > 0)
        rc = set_byte(fd, offset, F_WRLCK);
    if (rc == 0)
        note_held(fd);
    return rc;
}

void wc_os_unlock_byte(int fd, uint64_t offset)
{
    forget_held(fd);
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
