// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_user_pointer_c - user pointer dereferenced directly
 *
 * The address is the caller's, and the driver stores to it as if it were its own.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#define ZOO_IOC_SIZE	_IO('z', 0)

#define ZOO_SIZE	4096

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != ZOO_IOC_SIZE)
		return -ENOTTY;
	*(u64 *)arg = ZOO_SIZE;
	return 0;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= zoo_ioctl,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: user pointer dereferenced directly");
MODULE_LICENSE("GPL");
