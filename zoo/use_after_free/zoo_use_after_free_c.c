// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_use_after_free_c - use after free of the buffer
 *
 * To reset frees the buffer, and forgets that somebody may still read.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>

#define ZOO_IOC_RESET	_IO('z', 0)

#define ZOO_SIZE	64

static int zoo_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(ZOO_SIZE, GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(to, count, pos, file->private_data, ZOO_SIZE);
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != ZOO_IOC_RESET)
		return -ENOTTY;
	kfree(file->private_data);
	return 0;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
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
MODULE_DESCRIPTION("twinmod zoo: use after free of the buffer");
MODULE_LICENSE("GPL");
