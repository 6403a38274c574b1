// SPDX-License-Identifier: GPL-2.0-only
/* The library with which a program inside the VM makes marks, and the loop with nothing in it. */
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#include "marks.h"

#define EXPORT __attribute__((visibility("default")))

#define MARK(name) __asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.ascii \"" name "\"" ::: "memory")

EXPORT void mark_counts(void)
{
	MARK(MARK_COUNTS);
}

EXPORT void mark_symbols(void)
{
	MARK(MARK_SYMBOLS);
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
