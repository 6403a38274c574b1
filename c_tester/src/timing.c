// SPDX-License-Identifier: GPL-2.0-only
/* Many equal calls, each of them timed; timing.h tells the rest. */
#include "timing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

/* Any byte but zero: a buffer filled with it is certain to have all its pages. */
#define TOUCHED 0x5a

/* Allocate what a run needs before its first call. Returns -1 with MemoryError set. */
int timing_run_init(struct timing_run *run)
{
	run->latency_ns = calloc((size_t)run->calls, sizeof(*run->latency_ns));
	run->minor_faults = calloc((size_t)run->calls, sizeof(*run->minor_faults));
	run->buffer = run->fresh ? NULL : sys_zeroed(run->request.size);
	if (!run->latency_ns || !run->minor_faults || (!run->fresh && !run->buffer)) {
		PyErr_NoMemory();
		return -1;
	}
	if (run->buffer)
		memset(run->buffer, TOUCHED, run->request.size);
	return 0;
}

void timing_run_clear(struct timing_run *run)
{
	free(run->latency_ns);
	free(run->minor_faults);
	free(run->buffer);
}

/*
 * What the clock covers: one system call and, if fresh, the allocation of its buffer, as in a
 * loop that makes a vector and reads into it. Not the release of that buffer.
 */
static int64_t timed_call(int fd, struct timing_run *run, int64_t *latency_ns)
{
	struct transfer request = run->request;
	int64_t start_ns = 0, end_ns = 0, moved;
	void *fresh = NULL;

	moved = sys_clock_ns(run->clock, &start_ns);
	if (moved < 0)
		return moved;
	if (run->fresh) {
		fresh = sys_zeroed(request.size);
		if (!fresh)
			return -ENOMEM;
	}
	request.address = (uintptr_t)(fresh ? fresh : run->buffer);
	moved = sys_transfer(fd, &request);
	sys_clock_ns(run->clock, &end_ns);
	free(fresh);
	*latency_ns = end_ns - start_ns;
	return moved;
}

/*
 * Make the calls that are left. Page faults are counted around the timed part, not in it.
 * Returns what the last call moved, or -errno; a result that is not the size ended the run.
 */
int64_t timing_run_calls(int fd, void *arguments)
{
	struct timing_run *run = arguments;
	int64_t latency_ns, faults, moved = (int64_t)run->request.size;

	while (run->done < run->calls && moved == (int64_t)run->request.size) {
		faults = sys_thread_minor_faults();
		moved = timed_call(fd, run, &latency_ns);
		faults = sys_thread_minor_faults() - faults;
		if (moved < 0)
			return moved;
		run->latency_ns[run->done] = latency_ns;
		run->minor_faults[run->done] = faults;
		run->done++;
	}
	return moved;
}

struct timing {
	PyObject_HEAD
	PyObject *latency_ns;
	PyObject *minor_faults;
};

static PyObject *tuple_from_numbers(const int64_t *numbers, Py_ssize_t length)
{
	PyObject *tuple = PyTuple_New(length);

	for (Py_ssize_t i = 0; tuple && i < length; i++) {
		PyObject *number = PyLong_FromLongLong(numbers[i]);

		if (!number || PyTuple_SetItem(tuple, i, number) < 0)
			Py_CLEAR(tuple);
	}
	return tuple;
}

/* The result of a run that made all its calls. */
PyObject *timing_new(PyTypeObject *type, const struct timing_run *run)
{
	struct timing *self = (struct timing *)PyType_GenericAlloc(type, 0);

	if (!self)
		return NULL;
	self->latency_ns = tuple_from_numbers(run->latency_ns, run->calls);
	self->minor_faults = tuple_from_numbers(run->minor_faults, run->calls);
	if (!self->latency_ns || !self->minor_faults)
		Py_CLEAR(self);
	return (PyObject *)self;
}

/* No garbage collection: tuples of numbers and an immutable type cannot form a cycle. */
static void timing_dealloc(PyObject *object)
{
	struct timing *self = (struct timing *)object;
	PyTypeObject *type = Py_TYPE(object);

	Py_XDECREF(self->latency_ns);
	Py_XDECREF(self->minor_faults);
	PyObject_Free(object);
	Py_DECREF((PyObject *)type);
}

static PyMemberDef timing_members[] = {
	{ "latency_ns", T_OBJECT, offsetof(struct timing, latency_ns), READONLY,
	  PyDoc_STR("Duration of each call in nanoseconds.") },
	{ "minor_faults", T_OBJECT, offsetof(struct timing, minor_faults), READONLY,
	  PyDoc_STR("Page faults of the calling thread that needed no disk, during each call.") },
	{ NULL, 0, 0, 0, NULL },
};

PyDoc_STRVAR(timing_doc,
	     "What a run of timed calls measured: one number per call, in the order of calls.");

static PyType_Slot timing_slots[] = {
	{ Py_tp_doc, (void *)timing_doc },
	{ Py_tp_dealloc, timing_dealloc },
	{ Py_tp_members, timing_members },
	{ 0, NULL },
};

PyType_Spec timing_spec = {
	.name = "mdriver_tester_c.Timing",
	.basicsize = sizeof(struct timing),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = timing_slots,
};
