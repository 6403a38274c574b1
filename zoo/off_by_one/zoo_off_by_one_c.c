// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_off_by_one_c - off by one at the end
 *
 * The position that equals the size is taken for the last one.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define ZOO_SIZE	64

static int zoo_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(ZOO_SIZE, GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t zoo_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	u8 *buffer = file->private_data;
	u8 byte;

	if (*pos > ZOO_SIZE)
		return -ENOSPC;
	if (get_user(byte, from))
		return -EFAULT;
	buffer[*pos] = byte;
	(*pos)++;
	return 1;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
	.release	= zoo_release,
	.write		= zoo_write,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: off by one at the end");
MODULE_LICENSE("GPL");
