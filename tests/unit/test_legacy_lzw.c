/* SPDX-License-Identifier: Apache-2.0 */
/* Old entries' compression: streams made by hand, and some of weezl's in tests/weezl/golden. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "legacy_lzw.h"
#include "support/scratch.h"

enum { CLEAR = 256, END = 257, FIRST = 258, LAST = 4095 };

/* Strings since a clear after which codes have 10, 11, 12 bits, and the table is full: with each
 * but the first a code comes in, and with 254 of them it has 512. */
enum { TEN = 255, ELEVEN = 767, TWELVE = 1791, FULL = 3839 };

#define ROOM ((size_t)32 * 1024)

/* A stream that is being made, and what it stands for, as the test says it. */
struct stream {
    uint8_t bytes[ROOM];
    size_t bits;
    unsigned strings; /* since a clear */
    uint8_t wanted[ROOM];
    size_t length;
};

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct stream));
    assert_non_null(*state);
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void restart(struct stream *s)
{
    memset(s, 0, sizeof(*s));
}

static void put_bits(struct stream *s, unsigned value, int bits)
{
    while (bits-- > 0) {
        assert_true(s->bits < 8 * ROOM);
        if (value >> bits & 1)
            s->bytes[s->bits / 8] = (uint8_t)(s->bytes[s->bits / 8] | 0x80 >> s->bits % 8);
        s->bits++;
    }
}

static int width(const struct stream *s)
{
    return s->strings < TEN ? 9 : s->strings < ELEVEN ? 10 : s->strings < TWELVE ? 11 : 12;
}

/* A code as long as it must be here. */
static void put(struct stream *s, unsigned code)
{
    put_bits(s, code, width(s));
    if (code == CLEAR)
        s->strings = 0;
    else if (code != END)
        s->strings++;
}

/* A code and its string. */
static void put_as(struct stream *s, unsigned code, const void *string, size_t length)
{
    put(s, code);
    assert_true(length <= ROOM - s->length);
    memcpy(s->wanted + s->length, string, length);
    s->length += length;
}

static void put_byte(struct stream *s, unsigned byte)
{
    uint8_t b = (uint8_t)byte;
    put_as(s, byte, &b, 1);
}

/* The nth of these bytes. */
static unsigned some_byte(unsigned n)
{
    return n * 7 % 256;
}

static void put_bytes(struct stream *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put_byte(s, some_byte(i));
}

static size_t size_of(const struct stream *s)
{
    return (s->bits + 7) / 8;
}

/* In memory of exactly these sizes, so that a sanitizer sees what reads or writes beyond. */
static void assert_decodes(const uint8_t *stream, size_t size, const uint8_t *wanted, size_t length)
{
    uint8_t *in = malloc(size ? size : 1), *out = malloc(length ? length : 1);
    size_t found = SIZE_MAX;
    assert_true(in && out);
    if (size)
        memcpy(in, stream, size);
    assert_int_equal(wc_lzw_length(&found, in, size, SIZE_MAX), 0);
    assert_int_equal(found, length);
    assert_int_equal(wc_lzw_length(&found, in, size, length), 0);
    assert_int_equal(wc_lzw_decode(out, length, in, size), 0);
    assert_memory_equal(out, wanted, length);
    if (length) {
        found = SIZE_MAX;
        assert_int_equal(wc_lzw_length(&found, in, size, length - 1), -1);
        assert_int_equal(found, SIZE_MAX);
    }
    free(in);
    free(out);
}

static void assert_refused(const uint8_t *stream, size_t size)
{
    uint8_t *in = malloc(size ? size : 1), byte = 0xA5;
    size_t found = 42;
    assert_non_null(in);
    if (size)
        memcpy(in, stream, size);
    assert_int_equal(wc_lzw_length(&found, in, size, SIZE_MAX), -1);
    assert_int_equal(found, 42);
    assert_int_equal(wc_lzw_decode(&byte, 0, in, size), -1);
    assert_int_equal(byte, 0xA5);
    free(in);
}

static void assert_good(const struct stream *s)
{
    assert_decodes(s->bytes, size_of(s), s->wanted, s->length);
}

static void assert_bad(const struct stream *s)
{
    assert_refused(s->bytes, size_of(s));
}

/* ---- the ends ---- */

static void the_empty_output_is_a_stream_and_no_bytes_are_none(void **state)
{
    static const uint8_t clear_end[] = {0x80, 0x40, 0x40}; /* 1 0000 0000, 1 0000 0001 */
    struct stream *s = *state;
    assert_decodes(clear_end, sizeof(clear_end), (const uint8_t *)"", 0);
    put(s, END);
    assert_good(s);
    assert_refused(NULL, 0);
}

static void the_most_significant_bit_comes_first(void **state)
{
    /* 1 0000 0000, 0 0110 0001, 0 0110 0010, 1 0000 0001 */
    static const uint8_t bytes[] = {0x80, 0x18, 0x4C, 0x50, 0x10};
    (void)state;
    assert_decodes(bytes, sizeof(bytes), (const uint8_t *)"ab", 2);
}

static void a_clear_at_the_start_may_be_missing_and_may_be_twice(void **state)
{
    struct stream *s = *state;
    put_bytes(s, 3);
    put(s, END);
    assert_good(s);
    restart(s);
    put(s, CLEAR);
    put(s, CLEAR);
    put_bytes(s, 3);
    put(s, END);
    assert_good(s);
}

/* However little of it is missing, but for the last byte's padding. */
static void without_its_end_a_stream_is_refused(void **state)
{
    struct stream *s = *state;
    put(s, CLEAR);
    put_bytes(s, 300);
    put(s, END);
    assert_good(s);
    for (size_t size = 0; size < size_of(s); size++)
        assert_refused(s->bytes, size);
}

static void what_follows_the_end_is_not_looked_at(void **state)
{
    struct stream *s = *state;
    put(s, CLEAR);
    put_bytes(s, 20);
    put(s, END);
    put(s, LAST & 511);
    put_bits(s, 0xFFFF, 16);
    assert_good(s);
}

/* ---- the table ---- */

static void a_code_is_the_string_before_and_the_first_byte_of_this(void **state)
{
    struct stream *s = *state;
    put(s, CLEAR);
    put_byte(s, 'a');
    put_byte(s, 'b');                /* 258: ab */
    put_byte(s, 'c');                /* 259: bc */
    put_as(s, FIRST, "ab", 2);       /* 260: ca */
    put_as(s, FIRST + 2, "ca", 2);   /* 261: abc */
    put_as(s, FIRST + 3, "abc", 3);  /* 262: caa */
    put_as(s, FIRST + 4, "caa", 3);  /* 263: abcc */
    put_as(s, FIRST + 5, "abcc", 4); /* 264: caaa */
    put_as(s, FIRST + 1, "bc", 2);
    put(s, END);
    assert_good(s);
}

static void a_code_may_be_used_while_it_is_added(void **state)
{
    struct stream *s = *state;
    put(s, CLEAR);
    put_byte(s, 'a');
    put_as(s, FIRST, "aa", 2);
    put_as(s, FIRST + 1, "aaa", 3);
    put_byte(s, 'b');
    put_as(s, FIRST + 3, "bb", 2);
    put_as(s, FIRST + 1, "aaa", 3);
    put_as(s, FIRST + 5, "aaaa", 4);
    put(s, END);
    assert_good(s);
}

static void a_code_beyond_the_table_is_refused(void **state)
{
    struct stream *s = *state;
    for (unsigned code = FIRST; code < 512; code++) { /* the first string cannot be one */
        restart(s);
        put(s, code);
        put(s, END);
        assert_bad(s);
    }
    for (unsigned strings = 1; strings < FULL; strings += strings < 400 ? 1 : 97) {
        unsigned newest = END + strings;
        restart(s);
        put(s, CLEAR);
        put_bytes(s, strings);
        if (newest + 1 >= 1u << width(s))
            continue; /* there is no such code of that length */
        put(s, newest + 1);
        put(s, END);
        assert_bad(s);
    }
}

static void a_clear_empties_the_table(void **state)
{
    struct stream *s = *state;
    for (unsigned strings = 0; strings < FULL + 20; strings += strings < 300 ? 1 : 101) {
        restart(s);
        put_bytes(s, strings);
        put(s, CLEAR);
        put_byte(s, 'x');
        put_as(s, FIRST, "xx", 2);
        put_byte(s, 'y');
        put_as(s, FIRST + 1, "xxy", 3);
        put(s, END);
        assert_good(s);

        restart(s);
        put_bytes(s, strings);
        put(s, CLEAR);
        put(s, FIRST);
        put(s, END);
        assert_bad(s);
    }
}

/* ---- lengths of codes ---- */

/* The stream ends before, at and behind each switch, and at each place the newest code is used. */
static void codes_get_longer_when_the_table_has_as_many(void **state)
{
    static const unsigned switches[] = {TEN, ELEVEN, TWELVE, FULL};
    struct stream *s = *state;
    for (size_t i = 0; i < sizeof(switches) / sizeof(*switches); i++) {
        for (unsigned strings = switches[i] - 3; strings <= switches[i] + 3; strings++) {
            const uint8_t last = (uint8_t)some_byte(strings - 1);
            restart(s);
            put(s, CLEAR);
            put_bytes(s, strings);
            put(s, END);
            assert_good(s);

            restart(s);
            put(s, CLEAR);
            put_bytes(s, strings);
            if (strings < FULL) {
                const uint8_t twice[] = {last, last};
                put_as(s, END + strings, twice, 2);
            }
            put_byte(s, 'z');
            put(s, END);
            assert_good(s);
        }
    }
}

/* With the code before the switch one bit longer already, as TIFF writes them, or still one bit
 * shorter after it, it is not read as what was meant. */
static void a_switch_at_another_place_is_not_ours(void **state)
{
    static const unsigned switches[] = {TEN, ELEVEN, TWELVE};
    struct stream *s = *state;
    for (size_t i = 0; i < sizeof(switches) / sizeof(*switches); i++) {
        size_t found;
        restart(s);
        put_bytes(s, switches[i] - 1);
        put_bits(s, END, width(s) + 1);
        assert_true(wc_lzw_length(&found, s->bytes, size_of(s), SIZE_MAX) < 0 ||
                    found != s->length);
        restart(s);
        put_bytes(s, switches[i]);
        put_bits(s, END, width(s) - 1);
        assert_true(wc_lzw_length(&found, s->bytes, size_of(s), SIZE_MAX) < 0 ||
                    found != s->length);
    }
}

static void a_full_table_stays_as_it_is(void **state)
{
    struct stream *s = *state;
    const uint8_t before_last[] = {(uint8_t)some_byte(FULL - 2), (uint8_t)some_byte(FULL - 1)};
    put(s, CLEAR);
    put_bytes(s, FULL);
    for (unsigned i = 0; i < 5000; i++) {
        const uint8_t pair[] = {(uint8_t)some_byte(i % 3000), (uint8_t)some_byte(i % 3000 + 1)};
        put_as(s, LAST, before_last, 2);
        put_as(s, FIRST + i % 3000, pair, 2);
    }
    put(s, CLEAR);
    put_byte(s, 'q');
    put_as(s, FIRST, "qq", 2);
    put(s, END);
    assert_good(s);
}

/* ---- bounds ---- */

/* Each code is the newest: 1, 2, ... 3,839 bytes, and then that one again and again. */
static void no_string_is_longer_and_nothing_is_lost_over_7_mb(void **state)
{
    const size_t most = (size_t)FULL * (FULL + 1) / 2 + (size_t)100 * FULL;
    struct stream *s = *state;
    uint8_t *out = malloc(most);
    size_t length, others = 0;
    assert_non_null(out);
    put(s, CLEAR);
    put(s, 'a');
    for (unsigned code = FIRST; code <= LAST; code++)
        put(s, code);
    for (int i = 0; i < 100; i++)
        put(s, LAST);
    put(s, END);
    assert_int_equal(wc_lzw_length(&length, s->bytes, size_of(s), most), 0);
    assert_int_equal(length, most);
    assert_int_equal(wc_lzw_length(&length, s->bytes, size_of(s), most - 1), -1);
    assert_int_equal(wc_lzw_decode(out, most, s->bytes, size_of(s)), 0);
    for (size_t i = 0; i < most; i++)
        others += out[i] != 'a';
    assert_int_equal(others, 0);
    free(out);
}

/* The input was written to between the two calls. */
static void another_stream_than_was_measured_writes_no_byte_beyond(void **state)
{
    struct stream *s = *state;
    uint8_t out[64];
    for (size_t length = 0; length <= 30; length++) {
        memset(out, 0xA5, sizeof(out));
        restart(s);
        put_bytes(s, 20);
        for (unsigned i = 0; i < 5; i++)
            put(s, FIRST + i); /* 30 bytes */
        put(s, END);
        assert_int_equal(wc_lzw_decode(out, length, s->bytes, size_of(s)), length == 30 ? 0 : -1);
        for (size_t i = length; i < sizeof(out); i++)
            assert_int_equal(out[i], 0xA5);
    }
    assert_int_equal(wc_lzw_decode(out, 31, s->bytes, size_of(s)), -1);
}

#define STACK ((size_t)64 * 1024)

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void *decode_here(void *argument)
{
    struct stream *s = argument;
    uint8_t *out = malloc(ROOM);
    size_t length = 0;
    int rc = wc_lzw_length(&length, s->bytes, size_of(s), ROOM);
    if (rc == 0)
        rc = wc_lzw_decode(out, length, s->bytes, size_of(s));
    free(out);
    return rc == 0 ? s : NULL;
}

static void *copy_here(void *argument)
{
    struct stream *s = argument;
    uint8_t *out = malloc(ROOM);
    if (out)
        memcpy(out, s->bytes, size_of(s));
    free(out);
    return s;
}

/* How much of its stack a thread with that body uses, with what libc takes of it. */
static size_t stack_of(void *(*body)(void *), struct stream *s)
{
    uint8_t *stack = NULL;
    pthread_attr_t attributes;
    pthread_t thread;
    void *result = NULL;
    size_t unused = 0;
    assert_int_equal(posix_memalign((void **)&stack, 4096, STACK), 0);
    memset(stack, 0x5A, STACK);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, body, s), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, s);
    while (unused < STACK && stack[unused] == 0x5A)
        unused++;
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    free(stack);
    return STACK - unused;
}
#endif

/* Hosts have threads with 64 KiB. */
static void at_most_16_kib_of_stack_are_used(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    print_message("sanitizers need more stack\n");
    skip();
#else
    struct stream *s = *state;
    put_bytes(s, FULL + 100);
    put(s, END);
    assert_true(stack_of(decode_here, s) <= stack_of(copy_here, s) + (size_t)16 * 1024);
#endif
}

/* ---- weezl's own ---- */

static void what_weezl_wrote_is_what_it_was(void **state)
{
    static const char *const names[] = {"empty", "byte",     "same", "text",
                                        "full",  "one-more", "noise"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char path[sizeof(TESTS_DIR) + 64];
        uint8_t *stream, *wanted;
        size_t size, length;
        snprintf(path, sizeof(path), TESTS_DIR "/weezl/golden/%s.lzw", names[i]);
        stream = scratch_read(path, &size);
        snprintf(path, sizeof(path), TESTS_DIR "/weezl/golden/%s", names[i]);
        wanted = scratch_read(path, &length);
        assert_decodes(stream, size, wanted, length);
        for (size_t cut = 0; cut < size; cut += cut < 64 ? 1 : 61)
            assert_refused(stream, cut);
        free(stream);
        free(wanted);
    }
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(the_empty_output_is_a_stream_and_no_bytes_are_none),
        test(the_most_significant_bit_comes_first),
        test(a_clear_at_the_start_may_be_missing_and_may_be_twice),
        test(without_its_end_a_stream_is_refused),
        test(what_follows_the_end_is_not_looked_at),
        test(a_code_is_the_string_before_and_the_first_byte_of_this),
        test(a_code_may_be_used_while_it_is_added),
        test(a_code_beyond_the_table_is_refused),
        test(a_clear_empties_the_table),
        test(codes_get_longer_when_the_table_has_as_many),
        test(a_switch_at_another_place_is_not_ours),
        test(a_full_table_stays_as_it_is),
        test(no_string_is_longer_and_nothing_is_lost_over_7_mb),
        test(another_stream_than_was_measured_writes_no_byte_beyond),
        test(at_most_16_kib_of_stack_are_used),
        test(what_weezl_wrote_is_what_it_was),
    };
    return cmocka_run_group_tests_name("legacy_lzw", tests, NULL, NULL);
}
