// SPDX-License-Identifier: GPL-2.0-only
/*
 * The extension module: it only wires.
 *
 * Twin of rust_tester/src/lib.rs: the same names and order.
 */
#include <Python.h>

#include <mdriver.h>

#include "count.h"
#include "device.h"

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
	PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);

	if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
		Py_CLEAR(type);
	return (PyTypeObject *)type;
}

static int add_number(PyObject *module, const char *name, unsigned long number)
{
	PyObject *object = PyLong_FromUnsignedLong(number);
	int result = object ? PyModule_AddObjectRef(module, name, object) : -1;

	Py_XDECREF(object);
	return result;
}

static int add_names(PyObject *module)
{
	PyObject *names = Py_BuildValue("[ssssss]", "IOC_ADD", "IOC_CLEAR", "IOC_SIZE", "TESTER",
					"Count", "Device");
	int result = names ? PyModule_AddObjectRef(module, "__all__", names) : -1;

	Py_XDECREF(names);
	return result;
}

static int module_exec(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);
	PyTypeObject *device_type = add_type(module, &device_spec);

	if (!device_type)
		return -1;
	Py_DECREF((PyObject *)device_type);
	state->count_type = add_type(module, &count_spec);
	if (!state->count_type)
		return -1;
	if (PyModule_AddStringConstant(module, "TESTER", "c") < 0 ||
	    add_number(module, "IOC_SIZE", MDRIVER_IOC_SIZE) < 0 ||
	    add_number(module, "IOC_CLEAR", MDRIVER_IOC_CLEAR) < 0 ||
	    add_number(module, "IOC_ADD", MDRIVER_IOC_ADD) < 0)
		return -1;
	return add_names(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = PyModule_GetState(module);

	Py_VISIT(state->count_type);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);

	Py_CLEAR(state->count_type);
	return 0;
}

static void module_free(void *module)
{
	module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
	{ Py_mod_exec, module_exec },
	{ 0, NULL },
};

static struct PyModuleDef module_definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_native",
	.m_doc = "Calls a memory device through its system calls: the C twin.",
	.m_size = sizeof(struct module_state),
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
	.m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void)
{
	return PyModuleDef_Init(&module_definition);
}
