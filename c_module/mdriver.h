/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The ioctl numbers of /dev/mdriver_c and /dev/mdriver_rust: rule R14 of DEVICE.md.
 *
 * The one file of the drivers that user space may include.
 */
#ifndef _UAPI_MDRIVER_H
#define _UAPI_MDRIVER_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Not in use by any other driver: Documentation/userspace-api/ioctl/ioctl-number.rst. */
#define MDRIVER_IOC_MAGIC	0xDC

/* Stores the number of bytes of the device. */
#define MDRIVER_IOC_SIZE	_IOR(MDRIVER_IOC_MAGIC, 0, __u64)

/* Makes every byte of the device zero, one page at a time. */
#define MDRIVER_IOC_CLEAR	_IO(MDRIVER_IOC_MAGIC, 1)

/**
 * struct mdriver_add - the argument of MDRIVER_IOC_ADD
 * @offset: where the number is, in bytes: a multiple of 8.
 * @delta: what is added to it, modulo 2^64.
 * @before: stored by the driver: the number before that.
 */
struct mdriver_add {
	__u64 offset;
	__u64 delta;
	__u64 before;
};

/* Adds to a number of 8 bytes on the device, in the byte order of the machine. */
#define MDRIVER_IOC_ADD		_IOWR(MDRIVER_IOC_MAGIC, 2, struct mdriver_add)

#endif /* _UAPI_MDRIVER_H */
