// SPDX-License-Identifier: GPL-2.0-only
/* The library of a program inside the VM: magic instructions, and the loop with nothing in it. */
#include <stddef.h>
#include <stdint.h>
#include <sys/io.h>
#include <sys/types.h>
#include <unistd.h>

#include "magic.h"

#define EXPORT __attribute__((visibility("default")))

#define MAGIC(name) __asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.ascii \"" name "\"" ::: "memory")

EXPORT void magic_counts(void)
{
	MAGIC(MAGIC_COUNTS);
}

/* The text is that of /proc/kallsyms. */
EXPORT void magic_symbols(const char *text, size_t length)
{
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.ascii \"" MAGIC_SYMBOLS "\""
			 :: "D"(text), "S"(length) : "memory");
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

/* QEMU's fw_cfg: which item is read, and its bytes one after the other. */
#define CONFIG_ITEM	0x510
#define CONFIG_DATA	0x511

/* Read an item of QEMU's fw_cfg from its begin; return -1 where a program may not. */
EXPORT int read_config(uint16_t item, void *buffer, size_t length)
{
	if (ioperm(CONFIG_ITEM, 2, 1))
		return -1;
	outw(item, CONFIG_ITEM);
	insb(CONFIG_DATA, buffer, length);
	/* A program with ports of its own costs the kernel more instructions. */
	return ioperm(CONFIG_ITEM, 2, 0);
}
