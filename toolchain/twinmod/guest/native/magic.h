/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a program inside the VM speaks to the profiler: by magic instructions, which do nothing else.
 *
 * Each is a no-op with an operand of four bytes, 0f 1f 80 and then the operand, that no compiler
 * makes: its operand is a word.
 */
#ifndef TWINMOD_MAGIC_H
#define TWINMOD_MAGIC_H

#define MAGIC_OPCODE	"\x0f\x1f\x80"
#define MAGIC_BYTES	7

#define MAGIC_COUNTS	"cnts"	/* write down what was counted, and begin anew */
#define MAGIC_SYMBOLS	"syms"	/* read the kernel's symbols again: rsi bytes of text at rdi */

#endif
