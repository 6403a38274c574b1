// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_ioctl_bounds_c - missing bounds on an offset of an ioctl
 *
 * The index comes from the caller, and the table has an end.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#define ZOO_IOC_LOOK	_IO('z', 0)

static u8 zoo_table[16] = { 1, 2, 3 };

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != ZOO_IOC_LOOK)
		return -ENOTTY;
	return zoo_table[arg];
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
MODULE_DESCRIPTION("twinmod zoo: missing bounds on an offset of an ioctl");
MODULE_LICENSE("GPL");
