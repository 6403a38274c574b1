// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_lock_order_c - lock order inverted
 *
 * To move forth takes one lock first, to move back the other.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>

#define ZOO_IOC_FORTH	_IO('z', 0)
#define ZOO_IOC_BACK	_IO('z', 1)

static DEFINE_MUTEX(zoo_left_lock);
static DEFINE_MUTEX(zoo_right_lock);
static int zoo_left;	/* protected by zoo_left_lock */
static int zoo_right;	/* protected by zoo_right_lock */

static void zoo_forth(void)
{
	mutex_lock(&zoo_left_lock);
	mutex_lock(&zoo_right_lock);
	zoo_left--;
	zoo_right++;
	mutex_unlock(&zoo_right_lock);
	mutex_unlock(&zoo_left_lock);
}

static void zoo_back(void)
{
	mutex_lock(&zoo_right_lock);
	mutex_lock(&zoo_left_lock);
	zoo_right--;
	zoo_left++;
	mutex_unlock(&zoo_left_lock);
	mutex_unlock(&zoo_right_lock);
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case ZOO_IOC_FORTH:
		zoo_forth();
		return 0;
	case ZOO_IOC_BACK:
		zoo_back();
		return 0;
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
MODULE_DESCRIPTION("twinmod zoo: lock order inverted");
MODULE_LICENSE("GPL");
