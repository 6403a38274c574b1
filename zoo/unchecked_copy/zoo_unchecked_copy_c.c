// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_unchecked_copy_c - unchecked user copy
 *
 * Nobody looks at how much of the caller's buffer was there.
 */
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uio.h>

#define ZOO_SIZE	4096

static u8 zoo_buffer[ZOO_SIZE];

static ssize_t zoo_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	size_t count = min_t(size_t, iov_iter_count(from), ZOO_SIZE);

	copy_from_iter(zoo_buffer, count, from);
	return count;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.write_iter	= zoo_write_iter,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: unchecked user copy");
MODULE_LICENSE("GPL");
