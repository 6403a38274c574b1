/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An open device and every way to call it.
 *
 * Twin of rust_tester/src/device.rs: the same names, order and comments.
 */
#ifndef MDRIVER_TESTER_DEVICE_H
#define MDRIVER_TESTER_DEVICE_H

#include <Python.h>

/* The type that a device makes instances of; kept in the module's state. */
struct module_state {
	PyTypeObject *count_type;
};

extern PyType_Spec device_spec;

#endif
