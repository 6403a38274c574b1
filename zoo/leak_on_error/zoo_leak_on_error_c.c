// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_leak_on_error_c - leak on the error path
 *
 * Where the copy fails, nobody frees what it was to fill.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define ZOO_IOC_CHECK	_IO('z', 0)

#define ZOO_SIZE	256

static int zoo_check(unsigned long arg)
{
	u8 *buffer = kmalloc(ZOO_SIZE, GFP_KERNEL);
	int ret;

	if (!buffer)
		return -ENOMEM;
	if (copy_from_user(buffer, (void __user *)arg, ZOO_SIZE))
		return -EFAULT;
	ret = buffer[0];
	kfree(buffer);
	return ret;
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == ZOO_IOC_CHECK ? zoo_check(arg) : -ENOTTY;
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
MODULE_DESCRIPTION("twinmod zoo: leak on the error path");
MODULE_LICENSE("GPL");
