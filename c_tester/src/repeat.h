/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Many equal calls with next to nothing between them, for whoever counts from outside what they
 * cost.
 *
 * Twin of rust_tester/src/repeat.rs: the same names, order and comments.
 */
#ifndef MDRIVER_TESTER_REPEAT_H
#define MDRIVER_TESTER_REPEAT_H

#include <Python.h>
#include <stdbool.h>

#include "sys.h"

/* A run of calls; it can be stopped by a signal and taken up again. */
struct repeat_run {
	struct transfer request;	/* of the next call */
	bool add;			/* IOC_ADD of 1 at the request's offset; moves no bytes */
	size_t stride;			/* how far the next call's buffer lies behind this one's */
	Py_ssize_t calls;
	Py_ssize_t done;
};

/* A run of openings, each closed at once. */
struct repeat_open_run {
	const char *path;
	int flags;
	Py_ssize_t calls;
	Py_ssize_t done;
};

bool repeat_operation_of(const char *name, struct repeat_run *run);
int64_t repeat_run_calls(int fd, void *run);
int64_t repeat_open_calls(int fd, void *run);

#endif
