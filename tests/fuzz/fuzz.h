/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

/*
 * What fuzz targets share. A target is one function, LLVMFuzzerTestOneInput(), which libFuzzer,
 * AFL++ and standalone_main.c call; what must hold is said with must(), which ends the process.
 */

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For the parts of a target that say what is expected: the fuzzer is to be led by the code under
 * test alone, and not slowed down by the other's loops. */
#if defined(__clang__)
#define FUZZ_ORACLE __attribute__((no_sanitize("coverage")))
#else
#define FUZZ_ORACLE
#endif

#define must(holds) ((holds) ? (void)0 : fuzz_failed(#holds, __FILE__, __LINE__))
_Noreturn void fuzz_failed(const char *what, const char *file, int line);

/* A directory of the process', mode 0700, in TMPDIR or else where files stay in memory. It is
 * removed when the process ends, with the files and the folders of one level that are in it. */
const char *fuzz_directory(void);
/* Its descriptor. */
int fuzz_directory_fd(void);

/* Makes `name` in the folder `at` a file of these bytes and mode, whatever was there. Returns a
 * descriptor for reading and writing. */
int fuzz_plant(int at, const char *name, const void *bytes, size_t size, unsigned mode);

/* Takes the input apart, from front to back. What is no more there is zero. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

FUZZ_ORACLE static inline uint64_t fuzz_number(struct fuzz_input *input, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes && input->left; i++, input->at++, input->left--)
        value |= (uint64_t)*input->at << (8 * i);
    return value;
}

/* As many as there are of `size` bytes, to `out`; returns how many. */
FUZZ_ORACLE static inline size_t fuzz_bytes(struct fuzz_input *input, void *out, size_t size)
{
    uint8_t *to = out;
    size_t n = 0;
    for (; n < size && input->left; n++, input->at++, input->left--)
        to[n] = *input->at;
    return n;
}

#endif
