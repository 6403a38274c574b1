// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_lock_forgotten_c - lock forgotten on one path
 *
 * Who adds holds the lock; who asks for the total does not.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>

#define ZOO_IOC_ADD	_IO('z', 0)
#define ZOO_IOC_TOTAL	_IO('z', 1)

static DEFINE_MUTEX(zoo_lock);
static int zoo_total;	/* protected by zoo_lock */

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case ZOO_IOC_ADD:
		mutex_lock(&zoo_lock);
		zoo_total = (zoo_total + 1) & INT_MAX;
		mutex_unlock(&zoo_lock);
		return 0;
	case ZOO_IOC_TOTAL:
		return zoo_total;
	default:
		return -ENOTTY;
	}
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
MODULE_DESCRIPTION("twinmod zoo: lock forgotten on one path");
MODULE_LICENSE("GPL");
