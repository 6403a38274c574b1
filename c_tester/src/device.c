// SPDX-License-Identifier: GPL-2.0-only
/* An open device and every way to call it; device.h tells the rest. */
#include "device.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <structmember.h>
#include <unistd.h>

#include <mdriver.h>

#include "count.h"
#include "error.h"
#include "repeat.h"
#include "sys.h"

#define COUNT_START 69		/* where a counter starts, unless told */

/*
 * The descriptor outlives close() until the last call on it has ended: its number can not be
 * given to another file while a thread still uses it. All fields need the interpreter's lock.
 */
struct device {
	PyObject_HEAD
	int fd;
	Py_ssize_t users;	/* one for being open, one per call in progress */
	bool closed;
};

static void device_release(struct device *self)
{
	if (--self->users)
		return;
	Py_BEGIN_ALLOW_THREADS
	close(self->fd);
	Py_END_ALLOW_THREADS
}

/* Make one call on an open device. Returns the result, or -1 with an exception set. */
static int64_t device_call(struct device *self, system_call call, void *arguments)
{
	int64_t result;

	if (self->closed) {
		raise_closed();
		return -1;
	}
	self->users++;
	result = call_detached(call, self->fd, arguments, NULL);
	device_release(self);
	return result;
}

static PyObject *number_or_null(int64_t result)
{
	return result < 0 ? NULL : PyLong_FromLongLong(result);
}

/* A size in bytes: not negative. For PyArg_Parse's "O&". */
static int convert_size(PyObject *object, void *result)
{
	Py_ssize_t size = PyNumber_AsSsize_t(object, PyExc_OverflowError);

	if (size == -1 && PyErr_Occurred())
		return 0;
	if (size < 0) {
		PyErr_SetString(PyExc_ValueError, "size must not be negative");
		return 0;
	}
	*(size_t *)result = (size_t)size;
	return 1;
}

/* An address or the argument of an ioctl: any 64-bit number. For PyArg_Parse's "O&". */
static int convert_address(PyObject *object, void *result)
{
	PyObject *number = PyNumber_Index(object);
	unsigned long long address;

	if (!number)
		return 0;
	address = PyLong_AsUnsignedLongLong(number);
	Py_DECREF(number);
	if (address == (unsigned long long)-1 && PyErr_Occurred())
		return 0;
	*(uint64_t *)result = address;
	return 1;
}

/* A path as open(2) wants it, in a bytes object; the exception's file name in `*name`. */
static PyObject *encode_path(PyObject *path, PyObject **name)
{
	PyObject *encoded;

	*name = PyOS_FSPath(path);
	if (!*name)
		return NULL;
	if (PyUnicode_Check(*name)) {
		encoded = PyUnicode_EncodeFSDefault(*name);
	} else {
		encoded = NULL;
		PyErr_SetString(PyExc_TypeError, "path must be a str or a PathLike of str");
	}
	if (!encoded)
		Py_CLEAR(*name);
	return encoded;
}

struct open_call {
	const char *path;
	int flags;
};

static int64_t call_open(int fd, void *arguments)
{
	const struct open_call *open_call = arguments;

	(void)fd;
	return sys_open(open_call->path, open_call->flags);
}

/* Returns the descriptor, or -1 with an exception set. */
static int open_device(PyObject *path, int flags)
{
	struct open_call call = { .flags = flags };
	PyObject *name = NULL, *encoded = encode_path(path, &name);
	char *text;
	int fd = -1;

	if (!encoded)
		return -1;
	/* Without a place for the length it refuses a path with a null byte in it. */
	if (PyBytes_AsStringAndSize(encoded, &text, NULL) == 0) {
		call.path = text;
		fd = (int)call_detached(call_open, -1, &call, name);
	}
	Py_DECREF(encoded);
	Py_DECREF(name);
	return fd;
}

static PyObject *device_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "path", "flags", NULL };
	struct device *self;
	PyObject *path;
	int flags = O_RDWR, fd;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|i:Device", names, &path, &flags))
		return NULL;
	fd = open_device(path, flags);
	if (fd < 0)
		return NULL;
	self = (struct device *)PyType_GenericAlloc(type, 0);
	if (!self) {
		close(fd);
		return NULL;
	}
	self->fd = fd;
	self->users = 1;
	return (PyObject *)self;
}

/* No garbage collection: a device refers to nothing but its immutable type. */
static void device_dealloc(PyObject *object)
{
	struct device *self = (struct device *)object;
	PyTypeObject *type = Py_TYPE(object);

	if (self->users)
		close(self->fd);
	PyObject_Free(object);
	Py_DECREF((PyObject *)type);
}

static PyObject *device_close(PyObject *object, PyObject *unused)
{
	struct device *self = (struct device *)object;

	(void)unused;
	if (!self->closed) {
		self->closed = true;
		device_release(self);
	}
	Py_RETURN_NONE;
}

static PyObject *device_fileno(PyObject *object, PyObject *unused)
{
	struct device *self = (struct device *)object;

	(void)unused;
	if (self->closed) {
		raise_closed();
		return NULL;
	}
	return PyLong_FromLong(self->fd);
}

static PyObject *device_enter(PyObject *object, PyObject *unused)
{
	struct device *self = (struct device *)object;

	(void)unused;
	if (self->closed) {
		raise_closed();
		return NULL;
	}
	return Py_NewRef(object);
}

static PyObject *device_exit(PyObject *object, PyObject *args)
{
	(void)args;
	return device_close(object, NULL);
}

static PyObject *device_get_fd(PyObject *object, void *closure)
{
	(void)closure;
	return device_fileno(object, NULL);
}

static PyObject *device_get_closed(PyObject *object, void *closure)
{
	(void)closure;
	return PyBool_FromLong(((struct device *)object)->closed);
}

static int64_t call_transfer(int fd, void *arguments)
{
	return sys_transfer(fd, arguments);
}

static PyObject *transfer_raw(PyObject *object, struct transfer *request)
{
	return number_or_null(device_call((struct device *)object, call_transfer, request));
}

/* Read into memory of our own, and hand over what came: never more, should a module say so. */
static PyObject *transfer_to_bytes(PyObject *object, struct transfer *request)
{
	void *memory = sys_zeroed(request->size);
	PyObject *bytes = NULL;
	int64_t moved;

	if (!memory)
		return PyErr_NoMemory();
	request->address = (uintptr_t)memory;
	moved = device_call((struct device *)object, call_transfer, request);
	if (moved > (int64_t)request->size)
		raise_moved(moved, request->size);
	else if (moved >= 0)
		bytes = PyBytes_FromStringAndSize(memory, (Py_ssize_t)moved);
	free(memory);
	return bytes;
}

static PyObject *transfer_from_buffer(PyObject *object, struct transfer *request, Py_buffer *data)
{
	PyObject *moved;

	request->address = (uintptr_t)data->buf;
	request->size = (size_t)data->len;
	moved = transfer_raw(object, request);
	PyBuffer_Release(data);
	return moved;
}

static PyObject *device_read(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "size", NULL };
	struct transfer request = { .write = false };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&:read", names, convert_size,
					 &request.size))
		return NULL;
	return transfer_to_bytes(object, &request);
}

static PyObject *device_write(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "data", NULL };
	struct transfer request = { .write = true };
	Py_buffer data;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:write", names, &data))
		return NULL;
	return transfer_from_buffer(object, &request, &data);
}

static PyObject *device_pread(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "size", "offset", NULL };
	struct transfer request = { .write = false, .at = true };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&L:pread", names, convert_size,
					 &request.size, &request.offset))
		return NULL;
	return transfer_to_bytes(object, &request);
}

static PyObject *device_pwrite(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "data", "offset", NULL };
	struct transfer request = { .write = true, .at = true };
	Py_buffer data;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*L:pwrite", names, &data,
					 &request.offset))
		return NULL;
	return transfer_from_buffer(object, &request, &data);
}

struct lseek_call {
	off_t offset;
	int whence;
};

static int64_t call_lseek(int fd, void *arguments)
{
	const struct lseek_call *call = arguments;

	return sys_lseek(fd, call->offset, call->whence);
}

static PyObject *device_lseek(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "offset", "whence", NULL };
	struct lseek_call call;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Li:lseek", names, &call.offset,
					 &call.whence))
		return NULL;
	return number_or_null(device_call((struct device *)object, call_lseek, &call));
}

static PyObject *device_read_to(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "address", "size", NULL };
	struct transfer request = { .write = false };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&:read_to", names, convert_address,
					 &request.address, convert_size, &request.size))
		return NULL;
	return transfer_raw(object, &request);
}

static PyObject *device_write_from(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "address", "size", NULL };
	struct transfer request = { .write = true };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&:write_from", names, convert_address,
					 &request.address, convert_size, &request.size))
		return NULL;
	return transfer_raw(object, &request);
}

static PyObject *device_pread_to(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "address", "size", "offset", NULL };
	struct transfer request = { .write = false, .at = true };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&L:pread_to", names, convert_address,
					 &request.address, convert_size, &request.size,
					 &request.offset))
		return NULL;
	return transfer_raw(object, &request);
}

static PyObject *device_pwrite_from(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "address", "size", "offset", NULL };
	struct transfer request = { .write = true, .at = true };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&L:pwrite_from", names,
					 convert_address, &request.address, convert_size,
					 &request.size, &request.offset))
		return NULL;
	return transfer_raw(object, &request);
}

struct ioctl_call {
	uint64_t request;
	uint64_t argument;
};

static int64_t call_ioctl(int fd, void *arguments)
{
	const struct ioctl_call *call = arguments;

	return sys_ioctl(fd, call->request, call->argument);
}

static PyObject *device_ioctl(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "request", "argument", NULL };
	struct ioctl_call call = { .argument = 0 };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|O&:ioctl", names, convert_address,
					 &call.request, convert_address, &call.argument))
		return NULL;
	return number_or_null(device_call((struct device *)object, call_ioctl, &call));
}

struct ioctl_range {
	uint64_t first;
	Py_ssize_t count;
	unsigned char *errnos;
};

static int64_t call_ioctls(int fd, void *arguments)
{
	const struct ioctl_range *range = arguments;
	Py_ssize_t index;

	for (index = 0; index < range->count; index++) {
		int64_t result = sys_ioctl(fd, range->first + (uint64_t)index, 0);

		/* The largest stands for those that do not fit. */
		if (result < -UCHAR_MAX)
			result = -UCHAR_MAX;
		range->errnos[index] = result < 0 ? (unsigned char)-result : 0;
	}
	return 0;
}

static PyObject *device_ioctls(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "first", "count", NULL };
	struct ioctl_range range;
	PyObject *errnos;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&n:ioctls", names, convert_address,
					 &range.first, &range.count))
		return NULL;
	if (range.count < 1) {
		raise_not_positive("count");
		return NULL;
	}
	errnos = PyBytes_FromStringAndSize(NULL, range.count);
	if (!errnos)
		return NULL;
	range.errnos = (unsigned char *)PyBytes_AsString(errnos);
	if (device_call((struct device *)object, call_ioctls, &range) < 0)
		Py_CLEAR(errnos);
	return errnos;
}

static PyObject *device_size(PyObject *object, PyObject *unused)
{
	uint64_t size = 0;
	struct ioctl_call call = { .request = MDRIVER_IOC_SIZE, .argument = (uintptr_t)&size };

	(void)unused;
	if (device_call((struct device *)object, call_ioctl, &call) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(size);
}

static PyObject *device_clear(PyObject *object, PyObject *unused)
{
	struct ioctl_call call = { .request = MDRIVER_IOC_CLEAR };

	(void)unused;
	if (device_call((struct device *)object, call_ioctl, &call) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *device_add(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "offset", "delta", NULL };
	uint64_t offset, delta;
	struct mdriver_add add;
	struct ioctl_call call = { .request = MDRIVER_IOC_ADD, .argument = (uintptr_t)&add };

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&:add", names, convert_address, &offset,
					 convert_address, &delta))
		return NULL;
	add = (struct mdriver_add){ .offset = offset, .delta = delta };
	if (device_call((struct device *)object, call_ioctl, &call) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(add.before);
}

static const struct module_state *state_of(PyObject *object)
{
	return PyType_GetModuleState(Py_TYPE(object));
}

static PyObject *device_repeat(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "operation", "calls", "address", "size", "stride", "offset", NULL };
	struct repeat_run run = { .done = 0 };
	const char *operation;
	int64_t moved;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sn|$O&O&O&L:repeat", names, &operation,
					 &run.calls, convert_address, &run.request.address,
					 convert_size, &run.request.size, convert_size,
					 &run.stride, &run.request.offset))
		return NULL;
	if (run.calls < 1) {
		raise_not_positive("calls");
		return NULL;
	}
	if (!repeat_operation_of(operation, &run)) {
		raise_not_an_operation();
		return NULL;
	}
	if (run.add)
		run.request.size = 0;
	moved = device_call((struct device *)object, repeat_run_calls, &run);
	if (moved < 0)
		return NULL;
	if (moved != (int64_t)run.request.size) {
		raise_moved(moved, run.request.size);
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *device_repeat_open(PyObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "path", "calls", "flags", NULL };
	struct repeat_open_run run = { .flags = O_RDWR };
	PyObject *path, *name = NULL, *encoded;
	int64_t result = -1;
	char *text;

	(void)type;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "On|$i:repeat_open", names, &path,
					 &run.calls, &run.flags))
		return NULL;
	if (run.calls < 1) {
		raise_not_positive("calls");
		return NULL;
	}
	encoded = encode_path(path, &name);
	if (!encoded)
		return NULL;
	if (PyBytes_AsStringAndSize(encoded, &text, NULL) == 0) {
		run.path = text;
		result = call_detached(repeat_open_calls, -1, &run, name);
	}
	Py_DECREF(encoded);
	Py_DECREF(name);
	if (result < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *device_count_up(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "threads", "increments", "offset", "start", "method", NULL };
	struct count_run run = { .start = COUNT_START };
	const char *method = "lock";
	int64_t moved;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn|$LO&s:count_up", names, &run.threads,
					 &run.increments, &run.offset, convert_address,
					 &run.start, &method))
		return NULL;
	if (run.threads < 1 || run.increments < 1) {
		raise_not_positive(run.threads < 1 ? "threads" : "increments");
		return NULL;
	}
	if (run.threads > MAX_THREADS) {
		raise_too_many("threads", MAX_THREADS);
		return NULL;
	}
	if (!count_method_of(method, &run.method)) {
		raise_not_a_method();
		return NULL;
	}
	moved = device_call((struct device *)object, count_run_threads, &run);
	return moved < 0 ? NULL : count_new(state_of(object)->count_type, &run, moved);
}

#define KEYWORDS(name) \
	#name, (PyCFunction)(void (*)(void))device_##name, METH_VARARGS | METH_KEYWORDS

static PyMethodDef device_methods[] = {
	{ "close", device_close, METH_NOARGS,
	  PyDoc_STR("close($self)\n--\n\n"
		    "Close the device; more than once is no error.\n\n"
		    "A call in progress in another thread ends first.") },
	{ "__enter__", device_enter, METH_NOARGS,
	  PyDoc_STR("__enter__($self)\n--\n\nReturn the device itself.") },
	{ "__exit__", device_exit, METH_VARARGS,
	  PyDoc_STR("__exit__($self, *args)\n--\n\nClose the device.") },
	{ "fileno", device_fileno, METH_NOARGS,
	  PyDoc_STR("fileno($self)\n--\n\nReturn the descriptor's number.") },
	{ KEYWORDS(read),
	  PyDoc_STR("read($self, size)\n--\n\n"
		    "One read(2) of at most size bytes; empty at the end.") },
	{ KEYWORDS(write),
	  PyDoc_STR("write($self, data)\n--\n\n"
		    "One write(2); return how many bytes were taken.") },
	{ KEYWORDS(pread),
	  PyDoc_STR("pread($self, size, offset)\n--\n\n"
		    "One pread(2) of at most size bytes; empty at the end.") },
	{ KEYWORDS(pwrite),
	  PyDoc_STR("pwrite($self, data, offset)\n--\n\n"
		    "One pwrite(2); return how many bytes were taken.") },
	{ KEYWORDS(lseek),
	  PyDoc_STR("lseek($self, offset, whence)\n--\n\n"
		    "Move the position with lseek(2); return the new one.") },
	{ KEYWORDS(read_to),
	  PyDoc_STR("read_to($self, address, size)\n--\n\n"
		    "One read(2) to a raw address, unchecked; return how many bytes came.") },
	{ KEYWORDS(write_from),
	  PyDoc_STR("write_from($self, address, size)\n--\n\n"
		    "One write(2) from a raw address, unchecked; return how many went.") },
	{ KEYWORDS(pread_to),
	  PyDoc_STR("pread_to($self, address, size, offset)\n--\n\n"
		    "One pread(2) to a raw address, unchecked; return how many bytes came.") },
	{ KEYWORDS(pwrite_from),
	  PyDoc_STR("pwrite_from($self, address, size, offset)\n--\n\n"
		    "One pwrite(2) from a raw address, unchecked; return how many went.") },
	{ KEYWORDS(ioctl),
	  PyDoc_STR("ioctl($self, request, argument=0)\n--\n\n"
		    "One ioctl(2) with the argument as it is; return its result.") },
	{ KEYWORDS(ioctls),
	  PyDoc_STR("ioctls($self, first, count)\n--\n\n"
		    "One ioctl(2) with each of count requests from first on, argument 0; return\n"
		    "the errno of each as a byte, 0 of one that succeeds.") },
	{ "size", device_size, METH_NOARGS,
	  PyDoc_STR("size($self)\n--\n\nSize of the device in bytes, by MDRIVER_IOC_SIZE.") },
	{ "clear", device_clear, METH_NOARGS,
	  PyDoc_STR("clear($self)\n--\n\nMake every byte zero, by MDRIVER_IOC_CLEAR.") },
	{ KEYWORDS(add),
	  PyDoc_STR("add($self, offset, delta)\n--\n\n"
		    "Add to the 8 bytes at offset, modulo 2**64, by MDRIVER_IOC_ADD; return the\n"
		    "number before.") },
	{ KEYWORDS(repeat),
	  PyDoc_STR("repeat($self, operation, calls, *, address=0, size=0, stride=0, offset=0)\n"
		    "--\n\n"
		    "Make calls of one kind, with next to nothing between them.\n\n"
		    "Read, write, pread and pwrite move size bytes from or to a raw address, which\n"
		    "nothing checks; each call's lies stride bytes behind the one before. Add is\n"
		    "MDRIVER_IOC_ADD of 1 at offset. A call that moves less than size ends the\n"
		    "run with OSError.") },
	{ "repeat_open", (PyCFunction)(void (*)(void))device_repeat_open,
	  METH_VARARGS | METH_KEYWORDS | METH_STATIC,
	  PyDoc_STR("repeat_open(path, calls, *, flags=2)\n--\n\n"
		    "Open a path and close it again, with next to nothing between.") },
	{ KEYWORDS(count_up),
	  PyDoc_STR("count_up($self, threads, increments, *, offset=0, start=69, method='lock')\n"
		    "--\n\n"
		    "Count up the 8 bytes at offset with threads.\n\n"
		    "Each thread adds 1 as often as increments says, by one of three methods:\n"
		    "lock, with one lock for all: lock, pread, pwrite, unlock; add: one\n"
		    "MDRIVER_IOC_ADD; racy: pread, pwrite, so increments may be lost. The first\n"
		    "failure of one stops all and is raised. A signal is answered when the run\n"
		    "has ended.") },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef device_getset[] = {
	{ "fd", device_get_fd, NULL, PyDoc_STR("The descriptor's number."), NULL },
	{ "closed", device_get_closed, NULL, PyDoc_STR("Whether close() was called."), NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

PyDoc_STRVAR(device_doc,
	     "Device(path, flags=2)\n--\n\n"
	     "An open device. Each method makes one system call, but for ioctls, repeat,\n"
	     "repeat_open and count_up.\n\n"
	     "A failure is OSError with the call's errno, or ValueError after close().");

static PyType_Slot device_slots[] = {
	{ Py_tp_doc, (void *)device_doc },
	{ Py_tp_new, device_new },
	{ Py_tp_dealloc, device_dealloc },
	{ Py_tp_methods, device_methods },
	{ Py_tp_getset, device_getset },
	{ 0, NULL },
};

PyType_Spec device_spec = {
	.name = "mdriver_tester_c.Device",
	.basicsize = sizeof(struct device),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = device_slots,
};
