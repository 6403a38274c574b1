/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the layouts have in common: a device of 1 MiB with the calls that the rules R10, R11, R12,
 * R17 and R20 of DEVICE.md are about. Where the bytes are, and what is locked when, each layout
 * says for itself, by the functions that are declared here.
 *
 * For measurements, not for use: there is no parameter, no poll and no splice.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <linux/align.h>
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "mdriver.h"

#define LAYOUT_SIZE	SZ_1M
#define LAYOUT_PAGES	(LAYOUT_SIZE >> PAGE_SHIFT)

#define LAYOUT_KILLED_PAGES	8

static int layout_alloc(void);
static void layout_free(void);

/* Both return the bytes moved, of which there are @count at least 1, or a negative errno. */
static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to);
static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from);

static void layout_clear(size_t index);
static u64 layout_add(size_t pos, u64 delta);
static int layout_mmap(struct file *file, struct vm_area_struct *vma);

static size_t layout_left(loff_t pos, size_t count)
{
	if (pos >= LAYOUT_SIZE)
		return 0;
	return min_t(size_t, count, LAYOUT_SIZE - pos);
}

/* Between two parts of a long call: lets others run, and tells whether to stop. */
static inline bool layout_killed(void)
{
	cond_resched();
	return fatal_signal_pending(current);
}

/* The same between two pages, now and then, as the drivers have it. */
static inline bool layout_killed_at(size_t index)
{
	return index % LAYOUT_KILLED_PAGES == 0 && layout_killed();
}

static ssize_t layout_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	size_t count = layout_left(iocb->ki_pos, iov_iter_count(to));
	ssize_t moved;

	if (!count)
		return 0;

	moved = layout_read(iocb->ki_pos, count, to);
	if (moved > 0)
		iocb->ki_pos += moved;
	return moved;
}

static ssize_t layout_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	size_t count = layout_left(iocb->ki_pos, iov_iter_count(from));
	ssize_t moved;

	if (!iov_iter_count(from))
		return 0;
	if (!count)
		return -ENOSPC;

	moved = layout_write(iocb->ki_pos, count, from);
	if (moved > 0)
		iocb->ki_pos += moved;
	return moved;
}

static loff_t layout_llseek(struct file *file, loff_t offset, int whence)
{
	return fixed_size_llseek(file, offset, whence, LAYOUT_SIZE);
}

static long layout_ioctl_add(struct mdriver_add __user *arg)
{
	struct mdriver_add add;

	if (copy_from_user(&add, arg, sizeof(add)))
		return -EFAULT;
	if (!IS_ALIGNED(add.offset, sizeof(u64)) || add.offset >= LAYOUT_SIZE)
		return -EINVAL;

	return put_user(layout_add(add.offset, add.delta), &arg->before);
}

static long layout_ioctl_clear(void)
{
	for (size_t index = 0; index < LAYOUT_PAGES; index++) {
		if (layout_killed_at(index))
			return -EINTR;
		layout_clear(index);
	}
	return 0;
}

static long layout_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case MDRIVER_IOC_SIZE:
		return put_user((u64)LAYOUT_SIZE, (u64 __user *)arg);
	case MDRIVER_IOC_CLEAR:
		return layout_ioctl_clear();
	case MDRIVER_IOC_ADD:
		return layout_ioctl_add((struct mdriver_add __user *)arg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations layout_fops = {
	.owner		= THIS_MODULE,
	.llseek		= layout_llseek,
	.read_iter	= layout_read_iter,
	.write_iter	= layout_write_iter,
	.unlocked_ioctl	= layout_ioctl,
	.mmap		= layout_mmap,
};

static struct miscdevice layout_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &layout_fops,
	.mode	= 0600,
};

static int __init layout_init(void)
{
	int ret = layout_alloc();

	if (ret)
		return ret;

	ret = misc_register(&layout_misc);
	if (ret)
		layout_free();
	return ret;
}
module_init(layout_init);

static void __exit layout_exit(void)
{
	misc_deregister(&layout_misc);
	layout_free();
}
module_exit(layout_exit);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod memory layout");
MODULE_LICENSE("GPL");

#endif /* LAYOUT_H */
