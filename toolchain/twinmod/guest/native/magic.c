// SPDX-License-Identifier: GPL-2.0-only
/* The library of a program inside the VM: magic instructions, and the loop with nothing in it. */
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#include "magic.h"

#define EXPORT __attribute__((visibility("default")))

#define MAGIC(name) __asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.ascii \"" name "\"" ::: "memory")

EXPORT void magic_counts(void)
{
	MAGIC(MAGIC_COUNTS);
}

EXPORT void magic_symbols(void)
{
	MAGIC(MAGIC_SYMBOLS);
}

/* What a tester's loop is measured against. Returns what the last call moved. */
EXPORT ssize_t bare_pread(int fd, void *buffer, size_t size, long calls)
{
	ssize_t moved = 0;

	for (long i = 0; i < calls; i++)
		moved = pread(fd, buffer, size, 0);
	return moved;
}

EXPORT ssize_t bare_pwrite(int fd, const void *buffer, size_t size, long calls)
{
	ssize_t moved = 0;

	for (long i = 0; i < calls; i++)
		moved = pwrite(fd, buffer, size, 0);
	return moved;
}
