// SPDX-License-Identifier: GPL-2.0-only
/* Threads that count up one value on the device; count.h tells the rest. */
#include "count.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <structmember.h>

#include <mdriver.h>

#include "error.h"

#define VALUE_SIZE ((int64_t)sizeof(uint64_t))
#define S_PER_NS 1e-9

/* What all threads share: one descriptor and one lock. */
struct shared {
	int fd;
	off_t offset;
	Py_ssize_t increments;
	enum count_method method;
	pthread_mutex_t lock;
	_Atomic int64_t moved;	/* all but VALUE_SIZE stops every thread; the first one stays */
};

bool count_method_of(const char *name, enum count_method *method)
{
	if (strcmp(name, "lock") == 0)
		*method = COUNT_LOCK;
	else if (strcmp(name, "add") == 0)
		*method = COUNT_ADD;
	else if (strcmp(name, "racy") == 0)
		*method = COUNT_RACY;
	else
		return false;
	return true;
}

/*
 * Read or write the value. Repeated after a signal without asking Python: only its main thread
 * runs handlers, and that one waits for the threads. Returns what was moved, or -errno.
 */
static int64_t move_value(int fd, bool write, uint64_t *value, off_t offset)
{
	struct transfer request = {
		.write = write,
		.at = true,
		.address = (uintptr_t)value,
		.size = sizeof(*value),
		.offset = offset,
	};
	int64_t moved;

	do {
		moved = sys_transfer(fd, &request);
	} while (moved == -EINTR);
	return moved;
}

static int64_t increment(const struct shared *shared)
{
	uint64_t value = 0;
	int64_t moved = move_value(shared->fd, false, &value, shared->offset);

	if (moved != VALUE_SIZE)
		return moved;
	value++;
	return move_value(shared->fd, true, &value, shared->offset);
}

static int64_t increment_locked(struct shared *shared)
{
	int64_t moved;

	pthread_mutex_lock(&shared->lock);
	moved = increment(shared);
	pthread_mutex_unlock(&shared->lock);
	return moved;
}

/* Returns what was moved if the device had moved it, or -errno. */
static int64_t increment_on_device(const struct shared *shared)
{
	struct mdriver_add add = { .offset = (uint64_t)shared->offset, .delta = 1 };
	int64_t result = sys_ioctl(shared->fd, MDRIVER_IOC_ADD, (uintptr_t)&add);

	return result < 0 ? result : VALUE_SIZE;
}

static int64_t increment_by_method(struct shared *shared)
{
	switch (shared->method) {
	case COUNT_ADD:
		return increment_on_device(shared);
	case COUNT_RACY:
		return increment(shared);
	default:
		return increment_locked(shared);
	}
}

static void stop_threads(struct shared *shared, int64_t moved)
{
	int64_t going = VALUE_SIZE;

	atomic_compare_exchange_strong(&shared->moved, &going, moved);
}

static void *count_thread(void *arguments)
{
	struct shared *shared = arguments;

	for (Py_ssize_t i = 0; i < shared->increments && shared->moved == VALUE_SIZE; i++) {
		int64_t moved = increment_by_method(shared);

		if (moved != VALUE_SIZE)
			stop_threads(shared, moved);
	}
	return NULL;
}

/* A thread that cannot start stops those that did, so that nothing is left behind. */
static void start_threads(struct count_run *run, struct shared *shared, pthread_t *threads)
{
	while (run->started < run->threads && !run->thread_error) {
		run->thread_error = pthread_create(&threads[run->started], NULL, count_thread,
						   shared);
		if (!run->thread_error)
			run->started++;
	}
	if (run->thread_error)
		stop_threads(shared, 0);
}

/* Start all threads, wait for all, and note what that took. Returns as move_value(). */
static int64_t time_threads(struct count_run *run, struct shared *shared)
{
	pthread_t threads[MAX_THREADS];
	struct process_times before = sys_process_times(), after;
	int64_t start_ns, end_ns;

	start_ns = sys_clock_ns();
	start_threads(run, shared, threads);
	for (Py_ssize_t i = 0; i < run->started; i++)
		pthread_join(threads[i], NULL);
	end_ns = sys_clock_ns();
	after = sys_process_times();
	run->real_s = (double)(end_ns - start_ns) * S_PER_NS;
	run->user_s = after.user_s - before.user_s;
	run->system_s = after.system_s - before.system_s;
	return shared->moved;
}

/* The whole run: write the start value, count, read the end value. Returns as move_value(). */
int64_t count_run_threads(int fd, void *arguments)
{
	struct count_run *run = arguments;
	struct shared shared = {
		.fd = fd,
		.offset = run->offset,
		.increments = run->increments,
		.method = run->method,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};

	shared.moved = move_value(fd, true, &run->start, run->offset);
	if (shared.moved == VALUE_SIZE)
		shared.moved = time_threads(run, &shared);
	if (shared.moved == VALUE_SIZE)
		shared.moved = move_value(fd, false, &run->actual, run->offset);
	return shared.moved;
}

struct count {
	PyObject_HEAD
	unsigned long long target;
	unsigned long long actual;
	double real_s;
	double user_s;
	double system_s;
};

/* The result of a run whose last transfer moved `moved` bytes. */
PyObject *count_new(PyTypeObject *type, const struct count_run *run, int64_t moved)
{
	struct count *self;

	if (run->thread_error) {
		raise_thread(run->started, run->threads, run->thread_error);
		return NULL;
	}
	if (moved != VALUE_SIZE) {
		raise_moved(moved, sizeof(uint64_t));
		return NULL;
	}
	self = (struct count *)PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	self->target = run->start + (uint64_t)run->threads * (uint64_t)run->increments;
	self->actual = run->actual;
	self->real_s = run->real_s;
	self->user_s = run->user_s;
	self->system_s = run->system_s;
	return (PyObject *)self;
}

static void count_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);

	PyObject_Free(object);
	Py_DECREF((PyObject *)type);
}

static PyMemberDef count_members[] = {
	{ "target", T_ULONGLONG, offsetof(struct count, target), READONLY,
	  PyDoc_STR("The value that no lost increment gives, modulo 2**64.") },
	{ "actual", T_ULONGLONG, offsetof(struct count, actual), READONLY,
	  PyDoc_STR("The value read after the last thread ended.") },
	{ "real_s", T_DOUBLE, offsetof(struct count, real_s), READONLY,
	  PyDoc_STR("Seconds from before the first thread started to after the last ended.") },
	{ "user_s", T_DOUBLE, offsetof(struct count, user_s), READONLY,
	  PyDoc_STR("Seconds of processor time of this process in user mode meanwhile.") },
	{ "system_s", T_DOUBLE, offsetof(struct count, system_s), READONLY,
	  PyDoc_STR("Seconds of processor time of this process in the kernel meanwhile.") },
	{ NULL, 0, 0, 0, NULL },
};

PyDoc_STRVAR(count_doc, "What came of counting up one value with several threads.");

static PyType_Slot count_slots[] = {
	{ Py_tp_doc, (void *)count_doc },
	{ Py_tp_dealloc, count_dealloc },
	{ Py_tp_members, count_members },
	{ 0, NULL },
};

PyType_Spec count_spec = {
	.name = "mdriver_tester_c.Count",
	.basicsize = sizeof(struct count),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = count_slots,
};
