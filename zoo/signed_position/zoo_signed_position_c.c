// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_signed_position_c - signed and unsigned mixed up in the position
 *
 * A position of 64 bits becomes an int, and a large one becomes negative.
 */
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#define ZOO_SIZE	4096

static int zoo_open(struct inode *inode, struct file *file)
{
	file->private_data = vzalloc(ZOO_SIZE);
	return file->private_data ? 0 : -ENOMEM;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	vfree(file->private_data);
	return 0;
}

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	u8 *buffer = file->private_data;
	int begin = *pos;

	if (begin >= ZOO_SIZE)
		return 0;
	count = min_t(size_t, count, ZOO_SIZE - begin);
	while (count--)
		if (put_user(buffer[begin++], to++))
			return -EFAULT;
	count = begin - (int)*pos;
	*pos += count;
	return count;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
	.release	= zoo_release,
	.read		= zoo_read,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: signed and unsigned mixed up in the position");
MODULE_LICENSE("GPL");
