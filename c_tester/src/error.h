/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From numbers to Python exceptions, and calls without the interpreter's lock.
 *
 * Twin of rust_tester/src/error.rs: the same names, order and comments.
 */
#ifndef MDRIVER_TESTER_ERROR_H
#define MDRIVER_TESTER_ERROR_H

#include <Python.h>
#include <stdint.h>

/* A call as sys.h makes it: a result, or -errno. It must not touch Python. */
typedef int64_t (*system_call)(int fd, void *arguments);

void raise_closed(void);
void raise_not_positive(const char *name);
void raise_too_many(const char *name, int limit);
void raise_not_a_method(void);
void raise_not_an_operation(void);
void raise_moved(int64_t moved, size_t wanted);
void raise_thread(Py_ssize_t started, Py_ssize_t wanted, int error);

int64_t call_detached(system_call call, int fd, void *arguments, PyObject *filename);

#endif
