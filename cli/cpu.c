/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The words of src/os/cpu.c, each a register of CPUID, by its leaf. */
enum word {
    VENDOR_EBX,
    VENDOR_ECX,
    VENDOR_EDX,
    LEAF_1_EAX,
    LEAF_1_ECX,
    LEAF_1_EDX,
    LEAF_7_EAX,
    LEAF_7_EBX,
    LEAF_7_ECX,
    LEAF_7_EDX,
    LEAF_7_1_EAX,
    LEAF_EXTENDED_ECX,
    LEAF_EXTENDED_EDX,
    WORDS
};

/* Those that the compilers of Wasmtime and Wasmer look at. The names are those of
 * /proc/cpuinfo and compilers; the bits are from Intel's manual, volume 2, CPUID, and for lzcnt
 * from AMD's, volume 3, appendix E. */
static const struct {
    const char *name;
    enum word word;
    unsigned bit;
} features[] = {
    {"sse3", LEAF_1_ECX, 0},          {"ssse3", LEAF_1_ECX, 9},
    {"fma", LEAF_1_ECX, 12},          {"cmpxchg16b", LEAF_1_ECX, 13},
    {"sse4.1", LEAF_1_ECX, 19},       {"sse4.2", LEAF_1_ECX, 20},
    {"popcnt", LEAF_1_ECX, 23},       {"avx", LEAF_1_ECX, 28},
    {"f16c", LEAF_1_ECX, 29},         {"bmi1", LEAF_7_EBX, 3},
    {"avx2", LEAF_7_EBX, 5},          {"bmi2", LEAF_7_EBX, 8},
    {"avx512f", LEAF_7_EBX, 16},      {"avx512dq", LEAF_7_EBX, 17},
    {"avx512cd", LEAF_7_EBX, 28},     {"avx512bw", LEAF_7_EBX, 30},
    {"avx512vl", LEAF_7_EBX, 31},     {"avx512vbmi", LEAF_7_ECX, 1},
    {"avx512bitalg", LEAF_7_ECX, 12}, {"lzcnt", LEAF_EXTENDED_ECX, 5},
};

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Little-endian, as they lay in the memory of the processor that they are of. */
static bool read_words(uint32_t words[WORDS], const char *hex)
{
    size_t i;

    memset(words, 0, WORDS * sizeof(*words));
    if (strlen(hex) != (size_t)WORDS * 8)
        return false;
    for (i = 0; i < (size_t)WORDS * 4; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        words[i / 4] |= (uint32_t)(high << 4 | low) << i % 4 * 8;
    }
    return true;
}

/* "GenuineIntel". */
static void read_vendor(char out[13], const uint32_t words[WORDS])
{
    static const enum word order[] = {VENDOR_EBX, VENDOR_EDX, VENDOR_ECX};
    size_t i;

    for (i = 0; i < 12; i++) {
        char c = (char)(words[order[i / 4]] >> i % 4 * 8 & 0xff);

        out[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    out[12] = '\0';
}

void cli_cpu_describe(char out[CLI_CPU_SIZE], const char *cpu, const char *other)
{
    uint32_t words[WORDS], others[WORDS], signature;
    unsigned family, model;
    const char *before = " with ";
    char vendor[13];
    size_t i, length;

    if (!read_words(words, cpu) || !read_words(others, other)) {
        snprintf(out, CLI_CPU_SIZE, "%s", cpu);
        return;
    }
    read_vendor(vendor, words);
    signature = words[LEAF_1_EAX];
    family = signature >> 8 & 15;
    model = signature >> 4 & 15;
    if (family == 6 || family == 15)
        model |= (signature >> 16 & 15) << 4;
    if (family == 15)
        family += signature >> 20 & 255;
    snprintf(out, CLI_CPU_SIZE, "%s %u/%u/%u", vendor, family, model, signature & 15);
    for (i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (!((words[features[i].word] & ~others[features[i].word]) >> features[i].bit & 1))
            continue;
        length = strlen(out);
        snprintf(out + length, CLI_CPU_SIZE - length, "%s%s", before, features[i].name);
        before = " ";
    }
}
