/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

/*
 * A thread of its own draws the line, because the work is inside one engine call for seconds.
 * States: not running (`running` false); running and nothing drawn; running and drawn.
 * Everything below is under `lock`.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake;
static pthread_t thread;
static bool allowed = true;
static bool running;
static bool drawn;
static const char *what;
static char name[256];
static size_t done, total;
static struct timespec began;

void cli_progress_allow(bool be_allowed)
{
    allowed = be_allowed;
}

static void erase(void)
{
    if (drawn)
        fputs("\r\033[K", stderr);
    drawn = false;
}

void cli_stderr_lock(void)
{
    pthread_mutex_lock(&lock);
    erase();
}

void cli_stderr_unlock(void)
{
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

static size_t terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col;
    return 80;
}

static void draw(long seconds)
{
    char line[512];
    char count[64] = "";
    size_t width = terminal_width() - 1;

    if (total > 1)
        snprintf(count, sizeof(count), " %zu/%zu", done, total);
    snprintf(line, sizeof(line), "%s%s%s%s, %ld s", what, count, *name ? " " : "", name, seconds);
    /* A line that wraps could not be taken back with a carriage return. */
    fprintf(stderr, "\r%.*s\033[K", (int)(width < sizeof(line) ? width : sizeof(line) - 1), line);
    fflush(stderr);
    drawn = true;
}

static void *loop(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    while (running) {
        struct timespec now, until;
        long seconds;

        clock_gettime(CLOCK_MONOTONIC, &now);
        seconds = (long)(now.tv_sec - began.tv_sec) - (now.tv_nsec < began.tv_nsec);
        if (seconds >= 1)
            draw(seconds);
        until = now;
        until.tv_nsec += 250000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&wake, &lock, &until);
    }
    erase();
    fflush(stderr);
    pthread_mutex_unlock(&lock);
    return NULL;
}

void cli_progress_start(const char *doing)
{
    const char *term = getenv("TERM");
    pthread_condattr_t attributes;
    sigset_t all, before;

    if (!allowed || running || !isatty(STDERR_FILENO) || !term || !strcmp(term, "dumb"))
        return;
    what = doing;
    name[0] = '\0';
    done = total = 0;
    drawn = false;
    clock_gettime(CLOCK_MONOTONIC, &began);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &attributes);
    pthread_condattr_destroy(&attributes);
    running = true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, loop, NULL)) {
        running = false; /* Work without it is as good. */
        pthread_cond_destroy(&wake);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void cli_progress_set(size_t is_done, size_t of, const char *at)
{
    size_t i;

    pthread_mutex_lock(&lock);
    done = is_done;
    total = of;
    if (at)
        snprintf(name, sizeof(name), "%s", at);
    for (i = 0; name[i]; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            name[i] = '?';
    pthread_mutex_unlock(&lock);
}

void cli_progress_stop(void)
{
    pthread_mutex_lock(&lock);
    if (!running) {
        pthread_mutex_unlock(&lock);
        return;
    }
    running = false;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&wake);
}
