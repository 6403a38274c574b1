/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The door to the kernel: one system call each, no Python, no loop.
 *
 * Twin of rust_tester/src/sys.rs: the same names, order and comments. Everything here may run
 * without the interpreter's lock, so a failure is a number: a result below zero is -errno.
 */
#ifndef MDRIVER_TESTER_SYS_H
#define MDRIVER_TESTER_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A request to move bytes between the device and user space. */
struct transfer {
	bool write;		/* to the device, else from it */
	bool at;		/* at an offset, else at the file's position */
	uintptr_t address;	/* not checked: the kernel's answer to a bad one is under test */
	size_t size;
	off_t offset;		/* bytes; counts only with `at` */
};

/* What the kernel has charged a process, in seconds. */
struct process_times {
	double user_s;
	double system_s;
};

int64_t sys_open(const char *path, int flags);
void sys_close(int fd);
int64_t sys_transfer(int fd, const struct transfer *request);
int64_t sys_lseek(int fd, off_t offset, int whence);
int64_t sys_ioctl(int fd, unsigned long request, uintptr_t argument);
int64_t sys_clock_ns(void);
struct process_times sys_process_times(void);
void *sys_zeroed(size_t size);

#endif
