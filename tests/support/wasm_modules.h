/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WASM_MODULES_H
#define TESTS_WASM_MODULES_H

/* Small WebAssembly, byte by byte: nothing here needs an engine. */

#include <stddef.h>
#include <stdint.h>

/* (module), and (component): no text, the shortest that there is of each. */
extern const uint8_t wasm_empty_module[8];
extern const uint8_t wasm_empty_component[8];

/* (module (func (export "add") (param i32 i32) (result i32) ...)) */
extern const uint8_t wasm_add[];
extern const size_t wasm_add_size;

/* (module (func (result v128) v128.const ...)): not valid without SIMD. */
extern const uint8_t wasm_simd[];
extern const size_t wasm_simd_size;

/* The size of the largest wasm_answer() with that padding. */
#define WASM_ANSWER_ROOM(padding) ((size_t)64 + (padding))

/*
 * (module (func (export "answer") (result i32) (i32.const value))) and, if `padding` is not 0, a
 * custom section of that many bytes, all the same and given by value. Returns how many bytes it
 * wrote to `out`. Different values give different modules of the same size.
 */
size_t wasm_answer(uint8_t *out, int32_t value, size_t padding);

/*
 * `functions` times (func (param $x i32) (result i32) x * value + i), i the number of the function,
 * so that the engine has something to do; the first is exported as "work" and so gives x * value.
 * `out` has room for WASM_WORK_ROOM(functions). Returns how many bytes it wrote.
 */
#define WASM_WORK_ROOM(functions) ((size_t)64 + (functions)*32)
size_t wasm_work(uint8_t *out, int32_t value, unsigned functions);

#endif
