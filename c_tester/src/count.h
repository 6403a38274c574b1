/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that count up one value on the device.
 *
 * Twin of rust_tester/src/count.rs: the same names, order and comments.
 */
#ifndef MDRIVER_TESTER_COUNT_H
#define MDRIVER_TESTER_COUNT_H

#include <Python.h>

#include "sys.h"

/* More would say nothing new, and could use up what the system has of threads. */
#define MAX_THREADS 1024

/* How a thread adds one. */
enum count_method {
	COUNT_LOCK,			/* read, add, write, with the one lock held */
	COUNT_ADD,			/* no lock: the device adds, by MDRIVER_IOC_ADD */
	COUNT_RACY,			/* neither: increments may be lost */
};

/* A run of counting threads: what it is asked for, then what came of it. */
struct count_run {
	Py_ssize_t threads;
	Py_ssize_t increments;		/* of each thread */
	enum count_method method;
	off_t offset;			/* of the value, in bytes */
	uint64_t start;
	uint64_t actual;
	double real_s;
	double user_s;
	double system_s;
	Py_ssize_t started;		/* threads that did start */
	int thread_error;		/* why the next one did not, or 0 */
};

extern PyType_Spec count_spec;

bool count_method_of(const char *name, enum count_method *method);
int64_t count_run_threads(int fd, void *run);
PyObject *count_new(PyTypeObject *type, const struct count_run *run, int64_t moved);

#endif
