// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_use_after_release_c - use of the device after release
 *
 * The last one that opened the device is remembered, and may be gone.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>

#define ZOO_IOC_LAST	_IO('z', 0)

struct zoo {
	int number;
};

static struct zoo *zoo_last;

static int zoo_open(struct inode *inode, struct file *file)
{
	struct zoo *zoo = kzalloc_obj(*zoo, GFP_KERNEL);

	if (!zoo)
		return -ENOMEM;
	zoo->number = 7;
	file->private_data = zoo;
	zoo_last = zoo;
	return 0;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == ZOO_IOC_LAST ? zoo_last->number : -ENOTTY;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
	.release	= zoo_release,
	.unlocked_ioctl	= zoo_ioctl,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: use of the device after release");
MODULE_LICENSE("GPL");
