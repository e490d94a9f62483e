/* SPDX-License-Identifier: Apache-2.0 */
/* What the processor can do, without asking the system: a new process pays for it. */
#define _GNU_SOURCE
#include "os/private.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

int wc_os_cpu(uint8_t out[64])
{
    if (LACKING(WC_OS_NO_CPU))
        return 0;
#if defined(__x86_64__)
    /* Leaf, subleaf, and which of eax, ebx, ecx, edx. What differs from core to core (the number of
     * the core in ebx of leaf 1) is left out. In a virtual machine each is an exit to its host, a
     * microsecond or more, so none is asked for twice. */
    static const struct {
        unsigned leaf, subleaf, registers;
    } asked[] = {{0, 0, 7 << 1}, {1, 0, 1 | 4 | 8}, {7, 0, 15}, {7, 1, 1}, {0x80000001, 0, 4 | 8}};
    uint32_t words[16] = {0}, highest = 0;
    unsigned count = 0;
    for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++) {
        unsigned r[4];
        if (asked[i].leaf > highest && asked[i].leaf < 0x80000000)
            continue;
        __cpuid_count(asked[i].leaf, asked[i].subleaf, r[0], r[1], r[2], r[3]);
        if (i == 0)
            highest = r[0];
        for (unsigned j = 0; j < 4; j++)
            if (asked[i].registers & 1u << j)
                words[count++] = r[j];
    }
    memcpy(out, words, count * sizeof(*words));
    return (int)(count * sizeof(*words));
#elif defined(__linux__)
    const unsigned long words[3] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2), sizeof(long)};
    memcpy(out, words, sizeof(words));
    return (int)sizeof(words);
#else
    (void)out;
    return 0;
#endif
}
