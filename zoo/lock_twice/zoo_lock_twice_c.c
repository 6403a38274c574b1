// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_lock_twice_c - lock taken twice
 *
 * A function that takes the lock calls another one that does.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>

#define ZOO_IOC_ADD	_IO('z', 0)

static DEFINE_MUTEX(zoo_lock);
static u16 zoo_total;	/* protected by zoo_lock */

static int zoo_get_total(void)
{
	int total;

	mutex_lock(&zoo_lock);
	total = zoo_total;
	mutex_unlock(&zoo_lock);
	return total;
}

static int zoo_add(void)
{
	int total;

	mutex_lock(&zoo_lock);
	zoo_total++;
	total = zoo_get_total();
	mutex_unlock(&zoo_lock);
	return total;
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == ZOO_IOC_ADD ? zoo_add() : -ENOTTY;
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
MODULE_DESCRIPTION("twinmod zoo: lock taken twice");
MODULE_LICENSE("GPL");
