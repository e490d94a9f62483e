/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
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
static struct cli_progress_counts counts;
static bool is_bar;             /* of `counts` there is more than done and total */
static uint64_t left_ns;        /* the estimate of what is left; 0: none */
static struct timespec left_at; /* when that was so */
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

/* ---- the line ------------------------------------------------------------------------------- */

struct line {
    char text[512];
    size_t used, width;
};

/* Adds all of it if there is room, or nothing. */
__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    char part[128];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(part, sizeof(part), format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof(part) || line->used + (size_t)length > line->width)
        return;
    memcpy(line->text + line->used, part, (size_t)length + 1);
    line->used += (size_t)length;
}

/* The end of a name says more than its beginning. It is cut between characters of UTF-8. */
static void add_name(struct line *line)
{
    enum { LEAST = 10 };
    size_t length = strlen(name);
    const char *from = name;

    if (!length || line->used + 2 + LEAST > line->width)
        return;
    if (line->used + 2 + length > line->width)
        from += length - (line->width - line->used - 2);
    while (from > name && ((unsigned char)*from & 0xC0) == 0x80)
        from++;
    line->used +=
        (size_t)snprintf(line->text + line->used, sizeof(line->text) - line->used, ", %s", from);
}

static const char *text_seconds(char out[32], long seconds)
{
    if (seconds < 120)
        snprintf(out, 32, "%ld s", seconds);
    else
        snprintf(out, 32, "%ld min", (seconds + 30) / 60);
    return out;
}

static void draw_bar(struct line *line, long seconds, const struct timespec *now)
{
    char bytes_done[CLI_TEXT_SIZE], bytes[CLI_TEXT_SIZE], time[32];
    size_t cells = line->width >= 90 ? 20 : 10;
    size_t full = counts.bytes ? (size_t)(counts.bytes_done * cells / counts.bytes) : 0;
    int64_t left = (int64_t)left_ns - ((now->tv_sec - left_at.tv_sec) * INT64_C(1000000000) +
                                       now->tv_nsec - left_at.tv_nsec);

    add(line, "%s", what);
    add(line, " [%.*s%.*s]", (int)full, "####################", (int)(cells - full),
        "....................");
    add(line, " %zu/%zu", counts.done, counts.total);
    add(line, ", %s of %s", counts.bytes_done ? cli_text_bytes(bytes_done, counts.bytes_done) : "0",
        cli_text_bytes(bytes, counts.bytes));
    add(line, ", %s", text_seconds(time, seconds));
    if (left >= 1000000000)
        add(line, ", about %s left", text_seconds(time, (long)(left / 1000000000)));
    if (counts.failed)
        add(line, ", %zu failed", counts.failed);
    if (counts.compiled)
        add(line, ", %zu compiled", counts.compiled);
    if (counts.hits)
        add(line, ", %zu there", counts.hits);
    add_name(line);
}

static void draw(long seconds, const struct timespec *now)
{
    struct line line = {.width = terminal_width() - 1};
    char count[64] = "";

    /* A line that wraps could not be taken back with a carriage return. */
    if (line.width >= sizeof(line.text))
        line.width = sizeof(line.text) - 1;
    if (is_bar && counts.total > 1) {
        draw_bar(&line, seconds, now);
    } else {
        if (counts.total > 1)
            snprintf(count, sizeof(count), " %zu/%zu", counts.done, counts.total);
        snprintf(line.text, line.width + 1, "%s%s%s%s, %ld s", what, count, *name ? " " : "", name,
                 seconds);
    }
    fprintf(stderr, "\r%s\033[K", line.text);
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
            draw(seconds, &now);
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
    memset(&counts, 0, sizeof(counts));
    is_bar = false;
    left_ns = 0;
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

static void set_name(const char *at)
{
    size_t i;

    if (at)
        snprintf(name, sizeof(name), "%s", at);
    for (i = 0; name[i]; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            name[i] = '?';
}

void cli_progress_set(size_t is_done, size_t of, const char *at)
{
    pthread_mutex_lock(&lock);
    counts.done = is_done;
    counts.total = of;
    set_name(at);
    pthread_mutex_unlock(&lock);
}

/*
 * Compiling takes time by the byte, and all that is left may have to be compiled. The rate is that
 * at the moment when something was done: in between nobody knows how far an engine is. Too little
 * done says nothing.
 */
static void estimate(const struct cli_progress_counts *now_counts)
{
    uint64_t left = now_counts->bytes - now_counts->bytes_done, elapsed;

    clock_gettime(CLOCK_MONOTONIC, &left_at);
    elapsed = (uint64_t)(left_at.tv_sec - began.tv_sec) * 1000 +
              (uint64_t)(left_at.tv_nsec / 1000000) - (uint64_t)(began.tv_nsec / 1000000);
    left_ns = 0;
    if (elapsed >= 2000 && now_counts->bytes_compiled >= now_counts->bytes / 20)
        left_ns = (uint64_t)((double)elapsed * 1e6 * (double)left /
                             (double)(now_counts->bytes_compiled + 1));
}

void cli_progress_update(const struct cli_progress_counts *new_counts, const char *at)
{
    pthread_mutex_lock(&lock);
    if (new_counts->done != counts.done)
        estimate(new_counts);
    counts = *new_counts;
    is_bar = true;
    set_name(at);
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
