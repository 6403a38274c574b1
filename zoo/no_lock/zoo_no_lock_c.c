// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_no_lock_c - no lock at all
 *
 * Two callers count at once, and one of them counts for nothing.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#define ZOO_IOC_COUNT	_IO('z', 0)

static u64 zoo_count;

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != ZOO_IOC_COUNT)
		return -ENOTTY;
	zoo_count++;
	return 0;
}

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(to, count, pos, &zoo_count, sizeof(zoo_count));
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.read		= zoo_read,
	.unlocked_ioctl	= zoo_ioctl,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: no lock at all");
MODULE_LICENSE("GPL");
