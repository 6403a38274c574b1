/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Many equal calls, each of them timed.
 *
 * Twin of rust_tester/src/timing.rs: the same names, order and comments.
 */
#ifndef MDRIVER_TESTER_TIMING_H
#define MDRIVER_TESTER_TIMING_H

#include <Python.h>
#include <stdbool.h>

#include "sys.h"

/* A run of timed calls; it can be stopped by a signal and taken up again. */
struct timing_run {
	struct transfer request;	/* of each call; its address is the buffer's */
	Py_ssize_t calls;
	Py_ssize_t done;
	bool fresh;			/* each call gets a buffer of its own */
	clockid_t clock;
	void *buffer;			/* the one that all calls share, unless fresh */
	int64_t *latency_ns;		/* one per call */
	int64_t *minor_faults;		/* one per call */
};

extern PyType_Spec timing_spec;

int timing_run_init(struct timing_run *run);
void timing_run_clear(struct timing_run *run);
int64_t timing_run_calls(int fd, void *run);
PyObject *timing_new(PyTypeObject *type, const struct timing_run *run);

#endif
