// SPDX-License-Identifier: GPL-2.0-only
/* From numbers to Python exceptions; error.h tells its rules. */
#include "error.h"

#include <errno.h>
#include <string.h>

/* The same class and sense as Python's own file objects. */
void raise_closed(void)
{
	PyErr_SetString(PyExc_ValueError, "I/O operation on closed device");
}

void raise_not_positive(const char *name)
{
	PyErr_Format(PyExc_ValueError, "%s must be at least 1", name);
}

void raise_too_many(const char *name, int limit)
{
	PyErr_Format(PyExc_ValueError, "%s must be at most %d", name, limit);
}

void raise_not_a_method(void)
{
	PyErr_SetString(PyExc_ValueError, "method must be 'lock', 'add' or 'racy'");
}

void raise_not_an_operation(void)
{
	PyErr_SetString(PyExc_ValueError,
			"operation must be 'read', 'write', 'pread', 'pwrite' or 'add'");
}

/* A transfer of another length has no errno of its own: EIO is the nearest. */
void raise_moved(int64_t moved, size_t wanted)
{
	PyObject *text = PyUnicode_FromFormat("moved %lld of %zu bytes",
					      (long long)moved, wanted);
	PyObject *error = text ? PyObject_CallFunction(PyExc_OSError, "iO", EIO, text) : NULL;

	if (error)
		PyErr_SetObject(PyExc_OSError, error);
	Py_XDECREF(error);
	Py_XDECREF(text);
}

/* Not an OSError: EAGAIN would make it a BlockingIOError, which it is not. */
void raise_thread(Py_ssize_t started, Py_ssize_t wanted, int error)
{
	PyErr_Format(PyExc_RuntimeError, "only %zd of %zd threads started: %s", started, wanted,
		     strerror(error));
}

/*
 * Make a call without the interpreter's lock; repeat it after a signal whose handler did not
 * raise, as PEP 475 says. Returns the result, or -1 with an exception set.
 */
int64_t call_detached(system_call call, int fd, void *arguments, PyObject *filename)
{
	int64_t result;

	do {
		Py_BEGIN_ALLOW_THREADS
		result = call(fd, arguments);
		Py_END_ALLOW_THREADS
		if (result == -EINTR && PyErr_CheckSignals() < 0)
			return -1;
	} while (result == -EINTR);
	if (result >= 0)
		return result;
	errno = (int)-result;
	PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, filename);
	return -1;
}
