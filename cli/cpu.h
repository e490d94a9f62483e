/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CPU_H
#define CLI_CPU_H

/* What an identity says of a processor, for people. */

enum { CLI_CPU_SIZE = 320 };

/*
 * `cpu`: the field of a wasmcache_identity. Its vendor, family, model and stepping, and what
 * engines ask for that it can do and `other` cannot: "GenuineIntel 6/85/7 with avx512f avx512bw".
 * What is not of an x86-64, or as another version of the library writes it, stays as it is.
 */
void cli_cpu_describe(char out[CLI_CPU_SIZE], const char *cpu, const char *other);

#endif
