/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

/*
 * Everything the tool prints. Results go to stdout, all else to stderr as "wasmcache: ..." lines.
 * Every function may be called from any thread: lines are never mixed, and the progress line makes
 * way for them.
 */

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <wasmcache.h>

/* Descriptors 0 to 2 that are closed would otherwise be given to the next file opened, and a
 * message would land in it. Also the locale of characters, and no death by SIGPIPE. */
void cli_output_init(void);
void cli_output_set(bool json, bool quiet, bool verbose);

/* One line on stderr. Control characters in it are made harmless, for file names come from
 * anywhere. error: always; warn: not with -q; note: only with -v. */
__attribute__((format(printf, 1, 2))) void cli_error(const char *format, ...);
__attribute__((format(printf, 1, 2))) void cli_warn(const char *format, ...);
__attribute__((format(printf, 1, 2))) void cli_note(const char *format, ...);
/* From now on this thread's errors and warnings go into `text` instead, the last over the others;
 * NULL: to stderr again. */
void cli_errors_to(char *text, size_t size);
/* Text of several lines from an engine or a guest, below an error. */
void cli_error_lines(const char *text, size_t length);

/* Results on stdout; a failure to write is remembered for cli_output_close(). */
__attribute__((format(printf, 1, 2))) void cli_print(const char *format, ...);

/* One object a line, at once. Takes the reference; NULL is a failure that is remembered too. */
void cli_json_line(json_t *object);
/* A string whose bytes need not be UTF-8; NULL and "" give null. */
json_t *cli_json_text(const char *text);
/* Milliseconds with the precision of a microsecond. */
json_t *cli_json_ms(uint64_t ns);
json_t *cli_json_key(const wasmcache_key *key);

/* Flushes stdout. Returns `status`, or CLI_FAILED with a message if something could not be
 * written and status is 0. */
int cli_output_close(int status);

/* ---- how values look to people ----------------------------------------------------------------
 */

enum { CLI_TEXT_SIZE = 72 };

/* "1.3 MB", "9.61 s", "2025-11-22 09:30", each into a buffer of CLI_TEXT_SIZE; "-" if 0, which
 * stands for not known. They return `out`. */
char *cli_text_bytes(char *out, uint64_t bytes);
char *cli_text_duration(char *out, uint64_t ns);
char *cli_text_time(char *out, uint64_t seconds);
/* The key, shortened when `brief`. */
char *cli_text_key(char *out, const wasmcache_key *key, bool brief);
/* 64 hex digits. */
char *cli_text_fingerprint(char out[CLI_TEXT_SIZE], const uint8_t fingerprint[32]);
/* "ok" for NONE. */
const char *cli_text_state(wasmcache_reason state);
const char *cli_text_kind(wasmcache_kind kind);

bool cli_is_terminal(void); /* stdout */

/* ---- progress ----------------------------------------------------------------------------------
 */

/* A line on a terminal's stderr once a second has gone by: "compiling 3/10 a.wasm, 4 s". Not with
 * -q or --json. One at a time. `name` is copied; NULL: as it was. `total` 0 or 1: no count. */
void cli_progress_start(const char *what);
void cli_progress_set(size_t done, size_t total, const char *name);
void cli_progress_stop(void);

/* Work whose size is known: "compiling [####......] 4/10, 12 MB of 31 MB, 8 s, about 13 s left,
 * 3 compiled, 1 failed, b.wasm". What does not fit on the line is left out. */
struct cli_progress_counts {
    size_t done, total; /* files */
    uint64_t bytes_done, bytes;
    uint64_t bytes_compiled; /* of those that are done: what took its time */
    size_t hits, compiled, failed;
};
/* Instead of cli_progress_set(), as often as one of them is done; copied. */
void cli_progress_update(const struct cli_progress_counts *counts, const char *name);

#endif
